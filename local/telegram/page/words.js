"use strict";

// ---------------------------------------------------------------- words: English, Russian

const WORDS = {
  chat: ["Messages", "Сообщения"], write: ["Message", "Сообщение"], send: ["Send", "Отправить"],
  attach: ["Send a picture", "Отправить картинку"], commands: ["Commands", "Команды"], close: ["Close", "Закрыть"],
  save: ["Save the picture", "Сохранить картинку"], picture: ["Picture", "Картинка"], cancel: ["Cancel", "Отмена"],
  overview: ["All examples", "Все примеры"], preview: ["Preview", "Набросок"],
  your_picture: ["Your picture", "Ваша картинка"], user: ["You:", "Вы:"], bot: ["stylebot:", "stylebot:"],
  skip: ["To the message box", "К строке сообщения"], buttons: ["Buttons", "Кнопки"],
  enlarge: ["Enlarge", "Увеличить"], choose: ["Send this?", "Отправить?"],
  as_photo: ["Send as photo", "Как фото"], as_photo_more: ["scaled to 1280 pixels", "до 1280 точек"],
  as_document: ["Send as file", "Как файл"], as_document_more: ["untouched", "без изменений"],
  drop: ["Drop pictures here", "Перетащите картинки сюда"], start: ["Start in the chat instead", "Начать в чате"],
  previous: ["Previous picture", "Предыдущая картина"], next: ["Next picture", "Следующая картина"],
  before: ["Before", "До"], after: ["After", "После"], compare: ["Before and after", "До и после"],
  tell_me: ["Tell me when a picture is finished", "Сообщать, когда картина готова"],
  finished: ["Your painting is ready", "Картина готова"],
  strength: ["Strength", "Сила"], size: ["Size", "Размер"], colours: ["Colours", "Цвета"],
  strength_0: ["Usual", "Обычная"], strength_1: ["Soft", "Мягко"], strength_2: ["Medium", "Средне"], strength_3: ["Strong", "Сильно"],
  size_0: ["Usual", "Обычный"], size_1: ["640 px", "640 точек"], size_2: ["1024 px", "1024 точки"], size_3: ["1600 px", "1600 точек"],
  preserve_color_0: ["The style's", "Стиля"], preserve_color_1: ["Mine", "Мои"],
  studio: ["New painting", "Новая картина"], photo: ["Photo", "Фотография"], style: ["Style", "Стиль"],
  own_photo: ["Your own photo", "Своя фотография"], own_style: ["Your own picture", "Своя картинка"],
  example_photos: ["Example photos", "Примеры фотографий"], painters: ["Painters", "Художники"],
  style_pictures: ["Or pictures, up to four", "Или картинки, до четырёх"],
  weights: ["How much of each", "Сколько от каждой"],
  weight_0: ["Less", "Меньше"], weight_1: ["Usual", "Обычно"], weight_2: ["More", "Больше"],
  paint: ["Paint", "Нарисовать"],
  takes_seconds: ["A painter needs a few seconds.", "Художнику нужно несколько секунд."],
  takes_longer: ["A picture as the style takes longer. Several are mixed into one style.",
                 "С образцом это дольше. Несколько образцов сольются в один стиль."],
  empty: ["Turn a photo into a painting", "Превратите фотографию в картину"],
  empty_more: ["This chat and all that is sent in it stay on this machine.",
               "Этот чат и всё, что в нём отправлено, остаётся на этом компьютере."],
  online: ["on this machine", "на этом компьютере"], typing: ["at work", "работает"],
  offline: ["No connection …", "Нет связи …"], again: ["Try again", "Ещё раз"],
  remove: ["Remove", "Убрать"], gone: ["This file is gone.", "Этого файла больше нет."],
  wrong_key: ["Open the address that the program shows when it starts.", "Откройте адрес, который программа показывает при запуске."],
  401: ["Open the address that the program shows when it starts.", "Откройте адрес, который программа показывает при запуске."],
  no_connection: ["Not sent: no connection.", "Не отправлено: нет связи."],
  file_empty: ["Not sent: {name} is empty.", "Не отправлено: {name} — пустой файл."],
  image_unreadable: ["Not sent: {name} is no picture that can be read.", "Не отправлено: {name} — не картинка, её не прочитать."],
  image_too_small: ["Not sent: {name} is too small. It needs 16 pixels on each side.",
                    "Не отправлено: {name} — слишком маленькая картинка, нужно хотя бы 16 точек по каждой стороне."],
  image_too_large: ["Not sent: {name} is too large. At most 40 megapixels are taken.",
                    "Не отправлено: {name} — слишком большая картинка, не больше 40 мегапикселей."],
  413: ["Not sent: {name} is too large. At most 50 MB are taken.", "Не отправлено: {name} — больше 50 МБ."],
};
const EXAMPLES = {
  astronaut: ["Astronaut", "Космонавт"], chelsea: ["Cat", "Кошка"], china: ["Temple", "Храм"],
  coffee: ["Coffee", "Кофе"], flower: ["Flower", "Цветок"], rocket: ["Rocket", "Ракета"],
  dabs: ["Dabs", "Мазки"], mosaic: ["Mosaic", "Мозаика"], swirls: ["Swirls", "Вихри"], waves: ["Waves", "Волны"],
};
const lang = navigator.language.toLowerCase().startsWith("ru") ? "ru" : "en";
const say = (key, words = WORDS) => words[key][lang === "ru" ? 1 : 0];
const $ = id => document.getElementById(id);
document.documentElement.lang = lang;
for (const it of document.querySelectorAll("[data-text]")) it.textContent = say(it.dataset.text);
for (const it of document.querySelectorAll("[data-label]")) {
  // A button is named by its tooltip. With both, a screen reader would say the name twice.
  it[it.matches("button, a") ? "title" : "ariaLabel"] = say(it.dataset.label);
}
$("text").placeholder = say("write");
