"use strict";

// ---------------------------------------------------------------- the studio: a photo, a style, one button
//
// It sends what a person would send: the photo with /paint and the painter's name under it, or with /paint alone and the
// style's pictures in the same album. The command begins anew, also where the chat waits for the style of another photo.
// Size, strength and colours are the bot's /settings.

/**
 * What the next painting is made of. A sample is { id, version, label, picture, file }: `picture` returns a promise of
 * a URL to show, and `file` a promise of the File to send. A painter has no file; its id is the data of its button, and
 * its picture may come in a new version.
 */
const draft = { photo: null, painter: null, pictures: [] };
const MOST_PICTURES = 4; // the bot takes eight; so many do not fit the frame
const WEIGHTS = [0.5, 1, 2]; // of a picture among several: what the bot reads under it
const USUAL_WEIGHT = 1; // its index
const weights = new Map(); // from a sample's id to the index of its weight, where it is not the usual one
let painters = [], examplePhotos = [], exampleStyles = [];
const ownPhotos = [], ownStyles = []; // since the page was opened

async function loadStudio() {
  const told = await call("studio").then(answer => answer.json()).catch(() => null);
  if (!told) return;
  painters = told.painters.map(painterSample);
  examplePhotos = told.photos.map(name => exampleSample("photos", name));
  exampleStyles = told.styles.map(name => exampleSample("styles", name));
  draft.photo ??= examplePhotos.find(it => it.id === "photos/chelsea") ?? examplePhotos[0] ?? null;
  if (!draft.pictures.length) draft.painter = painters.find(it => it.id === draft.painter?.id) ?? painters[0] ?? null;
  showStudio();
}

function painterSample({ text, callback_data, picture }) {
  const path = `button-picture?data=${encodeURIComponent(callback_data)}&version=${picture}`;
  const show = async () => picture ? getUrl(path, path) : Promise.reject(new Error("no picture"));
  return { id: callback_data, version: picture, label: text, picture: show };
}

function exampleSample(kind, name) {
  const path = `example/${kind}/${name}`, label = EXAMPLES[name] ? say(name, EXAMPLES) : name;
  const file = async () => new File([await (await call(path)).blob()], `${name}.jpg`, { type: "image/jpeg" });
  return { id: `${kind}/${name}`, version: "", label, picture: () => getUrl(path, path), file };
}

function ownSample(file) {
  const url = URL.createObjectURL(file);
  return { id: url, version: "", label: file.name, picture: async () => url, file: async () => file };
}

// ---------------------------------------------------------------- what it shows

function showStudio() {
  const photo = draft.photo ? [draft.photo] : [], styles = draft.painter ? [draft.painter] : draft.pictures;
  showFrame($("studio-photo"), photo);
  showFrame($("studio-style"), styles);
  showSamples($("studio-photos"), [...ownPhotos, ...examplePhotos], photo, takePhoto);
  showSamples($("studio-painters"), painters, styles, takePainter);
  showSamples($("studio-pictures"), [...ownStyles, ...exampleStyles], styles, takePicture);
  showWeights(draft.pictures);
  $("studio-painters").parentElement.hidden = !painters.length;
  $("paint").ariaDisabled = String(!photo.length || !styles.length);
  $("studio-preserve_color").disabled = Boolean(draft.painter); // a painter knows only its own colours
  $("studio-note").textContent = say(draft.painter ? "takes_seconds" : "takes_longer");
}

const has = (samples, sample) => samples.some(it => it.id === sample.id);

/** Shows large what has been chosen. */
function showFrame(frame, samples) {
  const shown = samples.map(sample => {
    const figure = make("figure"), image = make("img", "", "", { alt: "" });
    image.onerror = () => image.remove(); // such as HEIC, which few browsers can show
    sample.picture().then(url => { image.src = url; }).catch(() => image.remove());
    figure.append(image, make("figcaption", "", sample.label));
    return figure;
  });
  if (frame.dataset.ids === samples.map(it => it.id).join()) return;
  frame.dataset.ids = samples.map(it => it.id).join();
  frame.replaceChildren(...shown);
}

/** Shows a slider for each of several style pictures. Those that stay keep the focus. */
function showWeights(pictures) {
  const box = $("studio-weights"), old = new Map([...box.querySelectorAll("label")].map(row => [row.dataset.id, row]));
  box.hidden = pictures.length < 2;
  for (const [id, row] of old) if (!pictures.some(it => it.id === id)) row.remove();
  for (const sample of pictures) if (!old.has(sample.id)) box.append(weightRow(sample));
}

function weightRow(sample) {
  const row = make("label"), said = make("span");
  const slider = make("input", "", "", { type: "range", min: 0, max: WEIGHTS.length - 1 });
  const tell = () => { said.textContent = slider.ariaValueText = say(`weight_${slider.value}`); };
  slider.value = weights.get(sample.id) ?? USUAL_WEIGHT;
  slider.oninput = () => { weights.set(sample.id, Number(slider.value)); tell(); };
  slider.ariaLabel = sample.label;
  row.dataset.id = sample.id;
  row.append(make("span", "", sample.label), slider, said);
  tell();
  return row;
}

/** Returns what a person would write under a style picture: its weight, or nothing where that is the usual one. */
function weightCaption(sample) {
  const index = weights.get(sample.id) ?? USUAL_WEIGHT;
  return index === USUAL_WEIGHT ? "" : String(WEIGHTS[index]);
}

/** Shows samples to choose from. Their buttons stay while the samples do, and with them the focus. */
function showSamples(box, samples, taken, take) {
  const ids = samples.map(it => it.id + it.version).join();
  if (box.dataset.ids !== ids) {
    box.dataset.ids = ids;
    box.replaceChildren(...samples.map(sample => sampleButton(sample, take)));
    if (box.firstChild) box.firstChild.tabIndex = 0;
  }
  samples.forEach((sample, n) => { box.children[n].ariaPressed = String(has(taken, sample)); });
}

function sampleButton(sample, take) {
  const button = make("button", "sample", "", { type: "button", tabIndex: -1, title: sample.label });
  const image = make("img", "", "", { alt: "", onerror: () => image.remove() });
  sample.picture().then(url => { image.src = url; }).catch(() => image.remove());
  button.append(image, make("span", "", sample.label));
  button.onclick = () => take(sample);
  return button;
}

// ---------------------------------------------------------------- what is chosen

function takePhoto(sample) {
  draft.photo = sample;
  showStudio();
}

function takePainter(sample) {
  Object.assign(draft, { painter: sample, pictures: [] });
  showStudio();
}

/** Adds a picture to the style, or takes it out. The style is never left empty. */
function takePicture(sample) {
  const others = draft.pictures.filter(it => it.id !== sample.id), wasTaken = others.length < draft.pictures.length;
  if (wasTaken && !others.length) return;
  draft.pictures = wasTaken ? others : [...others, sample].slice(-MOST_PICTURES);
  draft.painter = null;
  showStudio();
}

function takeOwnPhoto(file) {
  ownPhotos.unshift(ownSample(file));
  takePhoto(ownPhotos[0]);
}

function takeOwnStyle(file) {
  ownStyles.unshift(ownSample(file));
  takePicture(ownStyles[0]);
}

function pickFor(take, multiple) {
  const picker = make("input", "", "", { type: "file", multiple, accept: "image/*,.heic,.heif,.avif" });
  picker.onchange = () => { for (const file of picker.files) take(file); };
  picker.click();
}

// ---------------------------------------------------------------- the settings

// What the bot's button `set:size:1` means. The words are in the order of the choices that the bot has.
const SETTINGS = { size: 4, strength: 4, preserve_color: 2 };

/** Returns the newest message that shows the settings, if there is one. */
const settingsMessage = () => newest([...messages.values()].filter(it => keysOf(it).some(key => isSetting(key))));
const newest = found => found.reduce((best, it) => it.message_id > (best?.message_id ?? 0) ? it : best, null);

const keysOf = ({ reply_markup }) => reply_markup?.inline_keyboard.flat() ?? [];
const isSetting = (key, name = "") => key.callback_data.startsWith(`set:${name}`);

/** Returns which choice of a setting the bot uses: that with a mark. Until it is asked, the first. */
function settingNow(name) {
  const keys = keysOf(settingsMessage() ?? {}).filter(key => isSetting(key, `${name}:`));
  const marked = keys.find(key => key.text.startsWith("✓"));
  return marked?.callback_data.split(":")[2].split("@")[0] ?? "0";
}

function showSettings() {
  for (const [name, count] of Object.entries(SETTINGS)) {
    const box = $(`studio-${name}`);
    const options = Array.from({ length: count }, (_, n) => make("option", "", say(`${name}_${n}`), { value: n }));
    if (!box.length) box.append(...options);
    box.value = settingNow(name);
  }
}

/** Presses the buttons of /settings where the studio says something else. */
async function applySettings() {
  const boxes = Object.keys(SETTINGS).map(name => [name, $(`studio-${name}`)]);
  const changed = boxes.filter(([name, box]) => !box.disabled && box.value !== settingNow(name));
  const wanted = changed.map(([name, box]) => [name, box.value]); // they may change while the bot answers
  if (!wanted.length) return;
  if (!settingsMessage()) send("text", "/settings");
  await waitUntil(settingsMessage, 20);
  for (const [name, index] of wanted) {
    const message = settingsMessage(), data = `set:${name}:${index}`;
    const button = message && findKey(message.message_id, data);
    if (!button) return;
    await press(button, message.message_id, button.dataset.data);
    await waitUntil(() => settingNow(name) === index, 20);
  }
}

/** Waits for a state of the chat, at most so many seconds. Returns the state, or null. */
async function waitUntil(state, seconds) {
  const deadline = Date.now() + 1000 * seconds;
  while (Date.now() < deadline) {
    const found = state();
    if (found) return found;
    await nextChange(deadline - Date.now());
  }
  return null;
}

// ---------------------------------------------------------------- painting

async function paintDraft() {
  if ($("paint").ariaDisabled === "true") return;
  const { photo, painter, pictures } = draft;
  const album = painter ? "" : newAlbum();
  const captions = pictures.map(picture => pictures.length > 1 ? weightCaption(picture) : "");
  closeStudio();
  try {
    await applySettings();
    const command = painter ? `/paint ${painter.id.split(":")[1]}` : "/paint";
    if (!await send("photo", await photo.file(), album, command)) return; // why is said below it
    for (const [n, picture] of pictures.entries()) send("photo", await picture.file(), album, captions[n]);
  } catch {
    setStatus("offline", "bad"); // an example could not be read; what failed to be sent says so itself
  }
}

/** Waits for the next change of the chat, at most so many milliseconds. */
function nextChange(milliseconds) {
  return new Promise(done => {
    addEventListener("chat-change", done, { once: true });
    setTimeout(done, milliseconds);
  });
}

// ---------------------------------------------------------------- where it stands

let isShownEmpty = null; // not known yet

/** While the chat is empty the studio is in its place, and else in a dialog of its own. */
function showEmpty(isEmpty) {
  if (isShownEmpty === isEmpty) return;
  isShownEmpty = isEmpty;
  $("empty").hidden = !isEmpty;
  $("studio-open").hidden = isEmpty;
  if (isEmpty) {
    $("empty").prepend($("studio"));
    showSettings();
    keepLoading();
  }
}

/** The painters may come some time after the page. */
async function keepLoading() {
  await loadStudio();
  if (!painters.length && !$("empty").hidden) setTimeout(keepLoading, 3000);
}

function openStudio() {
  showSettings();
  $("studio-dialog").append($("studio"));
  loadStudio();
  $("studio-dialog").showModal();
  unsettle($("studio-dialog"));
  $("paint").focus();
}

function closeStudio() {
  $("studio-dialog").close();
  if (!matchMedia("(pointer: coarse)").matches) $("text").focus();
}

for (const id of ["studio-photos", "studio-painters", "studio-pictures"]) {
  $(id).onkeydown = moveInKeys;
  $(id).addEventListener("focusin", markKey);
}
$("studio-open").onclick = openStudio;
$("studio-close").onclick = closeStudio;
$("paint").onclick = paintDraft;
$("own-photo").onclick = () => pickFor(takeOwnPhoto, false);
$("own-style").onclick = () => pickFor(takeOwnStyle, true);
for (const [id, take] of [["photo-slot", takeOwnPhoto], ["style-slot", takeOwnStyle]]) {
  $(id).ondrop = event => {
    const files = [...event.dataTransfer.files];
    if (!files.length) return;
    event.preventDefault();
    event.stopPropagation();
    $("drop").hidden = true;
    for (const file of files) take(file);
  };
}
