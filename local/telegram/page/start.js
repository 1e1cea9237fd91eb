"use strict";

if (!matchMedia("(pointer: coarse)").matches) $("text").focus(); // elsewhere it would open a keyboard on the screen
setStatus("online");
loadCommands();
listen();
