"use strict";

// ---------------------------------------------------------------- the input line and the commands

let commands = [];
async function loadCommands() {
  commands = await call(`commands?language_code=${lang}`).then(answer => answer.json()).catch(() => commands);
}

function showCommands(prefix) {
  const fitting = commands.filter(it => `/${it.command}`.startsWith(prefix));
  $("commands").replaceChildren(...fitting.map(({ command, description }) => {
    const button = make("button", "", "", { type: "button", role: "menuitem" });
    button.append(make("b", "", `/${command}`), ` ${description}`);
    button.onclick = () => { hideCommands(); $("text").value = ""; changed(); send("text", `/${command}`); $("text").focus(); };
    return button;
  }));
  if ($("commands").hidden) unsettle($("commands"));
  $("commands").hidden = !fitting.length;
  $("commands-button").ariaExpanded = String(!$("commands").hidden);
}

function hideCommands() {
  $("commands").hidden = true;
  $("commands-button").ariaExpanded = "false";
}

function changed() {
  $("send").disabled = !$("text").value.trim();
  if (!/^\/\w*$/.test($("text").value)) return hideCommands();
  showCommands($("text").value);
  if (!commands.length) loadCommands().then(() => commands.length && changed());
}

$("text").oninput = changed;
$("text").onkeydown = event => {
  if (event.key === "Enter" && !event.shiftKey && !event.isComposing && !matchMedia("(pointer: coarse)").matches) {
    event.preventDefault();
    sendText();
  } else if (event.key === "ArrowUp" && !$("commands").hidden) {
    event.preventDefault();
    $("commands").lastChild.focus();
  }
};
$("commands").onkeydown = event => {
  const step = { ArrowDown: "nextSibling", ArrowUp: "previousSibling" }[event.key];
  if (step) { event.preventDefault(); (document.activeElement[step] ?? $("text")).focus(); }
};
$("form").onsubmit = event => { event.preventDefault(); sendText(); };
$("start").onclick = () => { send("text", "/start"); $("text").focus(); };
$("commands-button").onclick = async () => {
  if (!$("commands").hidden) return hideCommands();
  await loadCommands();
  showCommands("/");
  $("commands").firstChild?.focus();
};
addEventListener("keydown", event => {
  const isInChat = $("log").contains(document.activeElement);
  if (event.key === "Escape" && (isInChat || !$("commands").hidden)) { hideCommands(); $("text").focus(); }
});
$("skip").onclick = () => $("text").focus();
addEventListener("click", event => { if (!event.target.closest("footer")) hideCommands(); });
