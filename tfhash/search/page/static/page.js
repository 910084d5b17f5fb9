// The search page: asks the server for the nearest images and draws them. No library, and text is
// only ever set as text.

const $ = (id) => document.getElementById(id);
let current = null; // what was asked for last: {file, upload} or {number, id}; null: examples
let about = {}; // of the index
let running = null; // the request whose answer is waited for
let waiting = 0; // of fields that were changed
let hint = $("hint").textContent;
const uploads = []; // files that were asked for, so that Back finds them

function element(tag, className, text) {
  const made = document.createElement(tag);
  if (className) made.className = className;
  if (text !== undefined) made.textContent = text;
  return made;
}

function say(text, isError = false) {
  $("status").textContent = text;
  $("status").classList.toggle("error", isError);
}

function address(number) {
  const query = new URLSearchParams();
  const radius = $("radius").value;
  if (radius !== "") query.set("radius", radius);
  else query.set("k", $("k").value || "24");
  for (const pair of $("where").value.split(",").map((part) => part.trim()).filter(Boolean)) {
    query.append("where", pair);
  }
  if (number !== undefined) query.set("number", number);
  return `/api/search?${query}`;
}

// Before anything is asked for, what is near the first image of the index.
async function search() {
  clearTimeout(waiting);
  if (running) running.abort();
  const own = running = new AbortController();
  const asked = current ?? { number: about.first };
  if (asked.number === null) return;
  const began = performance.now();
  say("Searching …");
  try {
    const upload = asked.file ? { method: "POST", body: asked.file } : {};
    const response = await fetch(address(asked.number), { ...upload, signal: own.signal });
    const answer = await response.json().catch(() => ({ error: `status ${response.status}` }));
    if (own !== running) return;
    if (!response.ok) throw new Error(answer.error);
    draw(answer);
    if (current) tell(answer, performance.now() - began);
    else say("Some images of the index; ask for a photo, or click one");
  } catch (error) {
    if (own === running) say(error.message || "The server does not answer", true);
  }
}

function tell(answer, milliseconds) {
  const cut = answer.ties_cut
    ? `, ${answer.ties_cut.toLocaleString()} more as far as the last one` : "";
  const shown = answer.found > answer.items.length ? `, the first ${answer.items.length} here` : "";
  const seconds = (milliseconds / 1000).toFixed(2);
  say(`${answer.found.toLocaleString()} found in ${seconds} s${shown}${cut}`);
}

// The key tells a browser that keeps pictures which index they are of.
function thumbnail(number) {
  return `/thumbnail/${number}?index=${about.key}`;
}

function draw(answer) {
  const list = $("results");
  list.replaceChildren(...answer.items.map((item) => tile(item, answer.code)));
}

function tile(item, code) {
  const button = element("button");
  button.type = "button";
  button.title = "Search from this image";
  const picture = element("span", "picture");
  const image = element("img");
  image.alt = "";
  image.loading = "lazy";
  image.src = thumbnail(item.number);
  image.addEventListener("error", () => picture.replaceChildren(element("span", "", "no picture")));
  picture.append(image);
  const plural = item.distance === 1 ? "bit" : "bits";
  button.append(picture, element("span", "distance", `${item.distance} ${plural}`));
  button.append(element("span", "name", item.id));
  if (item.payload !== null) {
    const text = typeof item.payload === "string" ? item.payload : words(item.payload);
    button.append(element("span", "payload", text));
  }
  button.append(bits(code, new Set(item.differs)));
  button.addEventListener("click", () => ask({ number: item.number, id: item.id }));
  const entry = element("li");
  entry.append(button);
  return entry;
}

function words(payload) {
  if (payload === null || typeof payload !== "object") return String(payload);
  return Object.entries(payload).map(([name, value]) => `${name}: ${[value].flat().join(", ")}`)
    .join(" · ");
}

function bits(code, differs) {
  const row = element("span", "bits");
  row.setAttribute("role", "img");
  const places = [...differs].map((place) => place + 1).join(", ");
  row.setAttribute("aria-label", differs.size ? `bits that differ: ${places}` : "the same code");
  row.title = row.getAttribute("aria-label");
  code.forEach((bit, place) => {
    const one = bit ^ differs.has(place);
    row.append(element("i", `${one ? "one" : ""} ${differs.has(place) ? "differs" : ""}`.trim()));
  });
  return row;
}

function ask(what, remember = true) {
  current = what;
  const asked = $("asked");
  if (asked.src.startsWith("blob:")) URL.revokeObjectURL(asked.src);
  asked.hidden = !what;
  if (what) asked.src = what.file ? URL.createObjectURL(what.file) : thumbnail(what.number);
  else asked.removeAttribute("src");
  $("hint").textContent = !what ? hint : what.file ? what.file.name || "Pasted photo"
    : what.id || "";
  if (remember && what.file) history.pushState({ upload: what.upload }, "", "/");
  else if (remember) history.pushState(what, "", `/#${what.number}`);
  search();
}

// What the address and the state of the history stand for; a reload has forgotten uploads.
function restore(state) {
  const number = location.hash.slice(1);
  const file = uploads[state?.upload];
  if (file) ask({ file, upload: state.upload }, false);
  else if (/^\d+$/.test(number)) ask({ number: Number(number), id: state?.id }, false);
  else ask(null, false);
}

function take(files) {
  if ($("file").disabled) return;
  const file = [...files].find((one) => one.type.startsWith("image/"));
  if (file) ask({ file, upload: uploads.push(file) - 1 });
  else say("That is no image", true);
}

$("file").addEventListener("change", (event) => {
  take(event.target.files);
  event.target.value = "";
});
for (const name of ["dragover", "dragenter"]) {
  document.addEventListener(name, (event) => {
    event.preventDefault();
    $("drop").classList.add("over");
  });
}
document.addEventListener("dragleave", () => $("drop").classList.remove("over"));
document.addEventListener("drop", (event) => {
  event.preventDefault();
  $("drop").classList.remove("over");
  take(event.dataTransfer.files);
});
document.addEventListener("paste", (event) => {
  if (event.clipboardData.files.length) take(event.clipboardData.files);
});
$("form").addEventListener("submit", (event) => event.preventDefault());
for (const id of ["k", "radius", "where"]) {
  $(id).addEventListener("change", () => {
    clearTimeout(waiting); // one request for fields that are changed one after the other
    waiting = setTimeout(search, 150);
  });
}
window.addEventListener("popstate", (event) => restore(event.state));

// Arrow keys go through the results, by rows up and down.
document.addEventListener("keydown", (event) => {
  const buttons = [...document.querySelectorAll("#results button")];
  if (!buttons.length || event.target.matches("input") || event.ctrlKey || event.metaKey) return;
  const at = buttons.indexOf(document.activeElement);
  const columns = buttons.filter((one) => one.offsetTop === buttons[0].offsetTop).length;
  const steps = { ArrowRight: 1, ArrowLeft: -1, ArrowDown: columns, ArrowUp: -columns };
  if (!(event.key in steps)) return;
  event.preventDefault();
  const to = at < 0 ? 0 : Math.min(Math.max(at + steps[event.key], 0), buttons.length - 1);
  buttons[to].focus();
});

async function start() {
  about = await (await fetch("/api/index")).json();
  const images = `${about.count.toLocaleString()} images, codes of ${about.code_length} bits`;
  $("about").textContent = images;
  if (!about.encodes) {
    $("file").disabled = true;
    $("hint").textContent = hint = "No model: choose an image below";
  }
  restore(history.state);
}

start().catch(() => say("The server does not answer", true));
