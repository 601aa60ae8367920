// A browser of nothing but what viewer.js asks for. It acts as hands would, and prints what was drawn as JSON:
// node viewer_stub.js PAGE still|moves
const text = require("fs").readFileSync(process.argv[2], "utf-8"), motion = process.argv[3];
const json = text.match(/<script type="application\/json">([^]*?)<\/script>/)[1];
const code = text.match(/<script>([^]*?)<\/script>/)[1];
let strokes, letters, places, now = 0;
const made = [], queue = [], nothing = () => {};

const to = (x, y) => {
  if (!(isFinite(x) && isFinite(y))) throw Error(`a place must be finite, got ${x}, ${y}`);
  places.push(x);
};
const pen = { clearRect: nothing, beginPath: nothing, strokeText: nothing, moveTo: to, lineTo: to };
pen.stroke = () => strokes++;
pen.fillText = (letter, x, y) => { to(x, y); letters += letter; };

class Element {
  constructor(tag) { Object.assign(this, { tag, attributes: {} }); made.push(this); }
  getContext() { return pen; }
  getBoundingClientRect() { return { width: 600, height: 400 }; }
  setAttribute(name, value) { this.attributes[name] = value; }
  addEventListener(name, act) { this[`on${name}`] = act; }
  querySelector(tag) { return tag === "script" ? { textContent: json } : made.findLast((e) => e.tag === tag) || new Element(tag); }
}
for (const name of ["append", "prepend", "replaceChildren", "setPointerCapture"]) Element.prototype[name] = nothing;
class Observer { observe() {} }
const figure = Object.assign(new Element("figure"), { id: "viewer" });
Object.assign(globalThis, {
  document: { querySelectorAll: () => [figure], createElement: (tag) => new Element(tag) },
  matchMedia: (query) => ({ matches: query.includes("motion") && motion === "still", addEventListener: nothing }),
  getComputedStyle: () => ({ getPropertyValue: () => " #336699" }),
  requestAnimationFrame: (act) => queue.push(act),
  devicePixelRatio: 1, Option: Observer, ResizeObserver: Observer, IntersectionObserver: Observer,
});
const shot = () => {
  for (let i = 0; i < 3 && queue.length; i++) {
    [strokes, letters, places] = [0, "", []];
    queue.shift()(now += 16);
  }
  return { strokes, letters, waiting: queue.length, x: places[0] };
};

eval(code);
const told = { start: shot() }, canvas = made.findLast((e) => e.tag === "canvas");
const key = (name) => { canvas.onkeydown({ key: name, preventDefault: nothing }); return shot(); };
told.still = key("0");
told.left = key("ArrowLeft");
told.right = key("ArrowRight");
told.plus = key("+");
key("0");
canvas.onpointerdown({ pointerId: 1, clientX: 0, clientY: 0 });
canvas.onpointermove({ pointerId: 1, clientX: 50, clientY: 9 });
canvas.onpointerup({ pointerId: 1 });
told.drag = shot();
key("Home");
const [drawn, known] = made.filter((e) => e.type === "radio");
drawn.onchange();
told.drawn = shot();
known.onchange();
told.known = shot();
told.label = canvas.attributes["aria-label"];
told.role = canvas.attributes.role;
told.space = key(" ").waiting;
console.log(JSON.stringify(told));
