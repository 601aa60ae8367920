// Chains as tubes on a canvas: what `viewer.py` left in the page, to be turned by hand. No library, no network.
"use strict";
for (const figure of document.querySelectorAll("figure.viewer")) {
  const { unit, targets } = JSON.parse(figure.querySelector("script").textContent);
  const canvas = document.createElement("canvas"), pen = canvas.getContext("2d");
  if (!pen) continue;
  const still = matchMedia("(prefers-reduced-motion: reduce)"), dark = matchMedia("(prefers-color-scheme: dark)");
  const shown = { target: 0, model: 0, what: "both", wide: false };
  let turn, zoom, spinning = !still.matches, visible = true, waiting = false, before = 0, scene, colours;

  // -- what is asked for ----------------------------------------------------------------------------------------
  const make = (tag, given = {}, ...inside) => {
    const element = Object.assign(document.createElement(tag), given);
    element.append(...inside);
    return element;
  };
  const bar = make("div", { className: "bar" });
  const choose = (word, names, act) => {
    const select = make("select", { onchange: () => act(+select.value) }, ...names.map((n, i) => new Option(n, i)));
    return make("label", {}, word, select);
  };
  const whole = (x) => Array.from({ length: x.length / 3 }, (_, i) =>
    x[3 * i] === null ? null : [0, 1, 2].map((a) => x[3 * i + a] * unit));
  const times = (a, b) => [0, 3, 6].flatMap((r) => [0, 1, 2].map((c) =>
    a[r] * b[c] + a[r + 1] * b[c + 3] + a[r + 2] * b[c + 6]));
  const spin = (right, down) => {
    const [c, s, k, t] = [Math.cos(right), Math.sin(right), Math.cos(down), Math.sin(down)];
    turn = times([1, 0, 0, 0, k, -t, 0, t, k], times([c, 0, s, 0, 1, 0, -s, 0, c], turn));
  };
  const reset = () => { turn = targets[shown.target].view.slice(); zoom = 1; ask(); };
  const rest = (on = false) => { spinning = on; pause.textContent = on ? "Pause" : "Turn"; before = 0; ask(); };
  const pause = make("button", { type: "button", onclick: () => rest(!spinning) });

  const furnish = () => {
    const one = targets[shown.target], list = [...one.drawn.keys()].map((i) => `${i + 1}`);
    bar.replaceChildren();
    if (targets.length > 1) {
      bar.append(choose("Chain", targets.map((t) => t.name), (i) => { Object.assign(shown, { target: i, model: 0 }); furnish(); }));
      bar.querySelector("select").value = shown.target;
    }
    if (list.length > 1) bar.append(choose("Model", [...list, "all"], (i) => { shown.model = i; build(); }));
    const button = (what) => make("input", { type: "radio", name: canvas.id, checked: shown.what === what,
      onchange: () => { shown.what = what; build(); } });
    const parts = ["drawn", "known", "both"].map((what) => make("label", {}, button(what), what));
    if (one.known) bar.append(make("fieldset", { ariaLabel: "Shown" }, ...parts));
    const box = make("input", { type: "checkbox", checked: shown.wide, onchange: () => { shown.wide = box.checked; build(); } });
    if (one.spread) bar.append(make("label", {}, box, "width shows the spread"));
    bar.append(pause, make("span", { className: "ends", ariaHidden: "true" }, "N", make("i"), "C"));
    reset();
    build();
  };

  // -- curves ---------------------------------------------------------------------------------------------------
  const build = () => {
    const one = targets[shown.target], what = one.known ? shown.what : "drawn", all = shown.model === one.drawn.length;
    const strands = [], models = all ? one.drawn : [one.drawn[shown.model]];
    const both = what === "both";
    if (what !== "known") for (const x of models) strands.push({ x: whole(x), grey: false, radius: all ? 0.4 : 0.75 });
    if (what !== "drawn" && one.known) strands.push({ x: whole(one.known), grey: both, radius: both ? 0.45 : 0.75 });
    const places = strands.reduce((sum, s) => sum + s.x.length, 0), fine = Math.max(2, Math.min(6, Math.floor(2400 / places)));
    const about = whole(one.known || one.drawn[0]).filter((p) => p), centre = [0, 1, 2].map((a) =>
      about.reduce((sum, p) => sum + p[a], 0) / about.length);
    const points = [], ends = [];
    let reach = 1, tall = 1;  // from the centre, and of that up or down
    for (const p of [one.known, ...one.drawn].filter((x) => x).flatMap(whole).filter((p) => p)) {
      const at = p.map((v, a) => v - centre[a]), up = one.view.slice(3, 6).reduce((sum, v, a) => sum + v * at[a], 0);
      [reach, tall] = [Math.max(reach, Math.hypot(...at)), Math.max(tall, Math.abs(up))];
    }
    for (const { x, grey, radius } of strands) {
      const wide = (i) => shown.wide && one.spread && !grey ? Math.min(4, 0.35 + 0.5 * one.spread[i] * unit) : radius;
      const beyond = (a, b) => a.map((v, k) => 2 * v - b[k]);
      x.forEach((p, i) => {
        const q = x[i + 1];
        if (!p || !q) return;
        const o = x[i - 1] || beyond(p, q), r = x[i + 2] || beyond(q, p);
        for (let n = x[i - 1] ? 1 : 0; n <= fine; n++) {  // Catmull-Rom: through p and q, with their neighbours' slopes
          const t = n / fine, w = wide(i) * (1 - t) + wide(i + 1) * t;
          const at = p.map((v, k) => v - centre[k] + t / 2 * (q[k] - o[k]
            + t * (2 * o[k] - 5 * v + 4 * q[k] - r[k] + t * (3 * (v - q[k]) + r[k] - o[k]))));
          points.push({ at, w, along: (i + t) / Math.max(1, x.length - 1), grey, joined: n > 0 });
        }
      });
    }
    points.forEach((p, i) => { if (i && p.joined) points[i - 1].goes = true; });
    if (strands.length && points.length && !all) {
      const first = points.findIndex((p) => !p.grey);
      ends.push([first, "N"], [points.findLastIndex((p) => !p.grey), "C"]);
    }
    scene = { points, reach: reach + 2, tall: tall + 2, ends: ends.filter(([i]) => i >= 0), flat: points.length > 2600 };
    canvas.setAttribute("aria-label", `${one.name}: ${both ? "drawn and known" : what} chain as a tube, in three dimensions. `
      + "Arrow keys turn it, plus and minus zoom, 0 resets, space starts and stops its turning.");
    ask();
  };

  // -- light ----------------------------------------------------------------------------------------------------
  const read = () => {
    const look = getComputedStyle(figure), of = (name) => {
      pen.fillStyle = look.getPropertyValue(name).trim();
      return [1, 3, 5].map((i) => parseInt(pen.fillStyle.slice(i, i + 2), 16));
    };
    colours = { paper: of("--paper"), known: of("--known"), ink: look.getPropertyValue("--quiet").trim(),
      ramp: Array.from({ length: 9 }, (_, i) => of(`--n${i}`)) };
    ask();
  };
  const mix = (a, b, t) => a.map((v, i) => v + (b[i] - v) * t);
  const css = (c) => `rgb(${c.map(Math.round).join(" ")})`;
  const hue = (p) => {
    if (p.grey) return colours.known;
    const place = p.along * 8, i = Math.min(7, Math.floor(place));
    return mix(colours.ramp[i], colours.ramp[i + 1], place - i);
  };

  const draw = () => {
    const box = canvas.getBoundingClientRect(), dots = Math.min(2, devicePixelRatio || 1);
    if (!box.width) return;
    const [wide, high] = [Math.round(box.width * dots), Math.round(box.height * dots)];
    if (canvas.width !== wide || canvas.height !== high) Object.assign(canvas, { width: wide, height: high });
    pen.clearRect(0, 0, wide, high);
    const { points, reach, tall, ends, flat } = scene, eye = 4.5 * reach, scale = 0.44 * Math.min(wide / reach, high / tall) * zoom;
    for (const p of points) {
      const [x, y, z] = p.at, near = turn[6] * x + turn[7] * y + turn[8] * z, lens = scale * eye / (eye - near);
      p.x = wide / 2 + lens * (turn[0] * x + turn[1] * y + turn[2] * z);
      p.y = high / 2 - lens * (turn[3] * x + turn[4] * y + turn[5] * z);
      p.z = near;
      p.width = Math.max(1.5, 2 * p.w * lens);
    }
    const order = [...points.keys()].filter((i) => points[i].goes).sort((i, j) =>
      points[i].z + points[i + 1].z - points[j].z - points[j + 1].z);
    for (const i of order) piece(points, i, reach, dots, flat);
    pen.font = `600 ${13 * dots}px system-ui, sans-serif`;
    Object.assign(pen, { textAlign: "center", textBaseline: "middle", lineJoin: "round", lineWidth: 4 * dots });
    for (const [i, letter] of ends) {
      const p = points[i], away = Math.hypot(p.x - wide / 2, p.y - high / 2) || 1, by = 14 * dots + p.width / 2;
      const [x, y] = [p.x + by * (p.x - wide / 2) / away, p.y + by * (p.y - high / 2) / away];
      pen.strokeStyle = css(colours.paper);
      pen.strokeText(letter, x, y);
      pen.fillStyle = colours.ink;
      pen.fillText(letter, x, y);
    }
  };

  // One short piece: a rim that parts it from what lies behind, a dark edge, the body, a gleam. It begins and ends a
  // little within its neighbours, along the same curve, each stroke beyond the one below it, so that no seam shows.
  const piece = (points, i, reach, dots, flat) => {
    const a = points[i], b = points[i + 1], o = a.joined ? points[i - 1] : null, r = b.goes ? points[i + 2] : null;
    const dx = b.x - a.x, dy = b.y - a.y, long = Math.hypot(dx, dy) || 1e-6, width = (a.width + b.width) / 2;
    const line = (size, colour, lapped, sx = 0, sy = 0) => {
      const lap = (p, q) => Math.min(1, lapped * dots / (Math.hypot(p.x - q.x, p.y - q.y) || 1));
      pen.beginPath();
      if (lapped && o) pen.moveTo(a.x + (o.x - a.x) * lap(a, o) + sx, a.y + (o.y - a.y) * lap(a, o) + sy);
      pen.lineTo(a.x + sx, a.y + sy);
      pen.lineTo(b.x + sx, b.y + sy);
      if (lapped && r) pen.lineTo(b.x + (r.x - b.x) * lap(b, r) + sx, b.y + (r.y - b.y) * lap(b, r) + sy);
      pen.lineWidth = size;
      pen.strokeStyle = css(colour);
      pen.stroke();
    };
    const toward = (b.z - a.z) / (Math.hypot(...b.at.map((v, k) => v - a.at[k])) || 1);
    const light = 0.8 + 0.2 * Math.sqrt(Math.max(0, 1 - toward * toward));
    const far = Math.min(1, Math.max(0, (reach - (a.z + b.z) / 2) / (2 * reach))), fog = 0.72 * far ** 1.3;
    const tone = (c) => mix(c, colours.paper, fog), base = hue(a), body = base.map((v) => v * light);
    pen.lineJoin = "round";
    pen.lineCap = "butt";
    line(width + 3 * dots, colours.paper, 0);
    pen.lineCap = o && r ? "butt" : "round";
    if (flat) return line(width, tone(body), 0.8);
    line(width, tone(base.map((v) => 0.62 * v * light)), 0.8);
    line(width - Math.min(0.26 * width, 5 * dots), tone(body), 1.8);
    const [nx, ny] = [-dy / long, dx / long], lit = (-0.5 * nx - 0.86 * ny) * 0.2 * width;
    line(0.24 * width, tone(mix(body, [255, 255, 255], 0.42 * light)), 2.8, nx * lit, ny * lit);
  };

  // -- time and hands -------------------------------------------------------------------------------------------
  const ask = () => { if (!waiting) { waiting = true; requestAnimationFrame(frame); } };
  const frame = (now) => {
    waiting = false;
    if (!scene || !colours) return;
    if (spinning && visible) spin(before ? Math.min(50, now - before) * 2.5e-4 : 0, 0);
    before = spinning && visible ? now : 0;
    draw();
    if (spinning && visible) ask();
  };
  const hands = new Map();
  const apart = () => { const [a, b] = [...hands.values()]; return Math.hypot(a.x - b.x, a.y - b.y) || 1; };
  const enlarge = (by) => { zoom = Math.min(12, Math.max(0.3, zoom * by)); ask(); };
  canvas.onpointerdown = (e) => {
    canvas.setPointerCapture(e.pointerId);
    hands.set(e.pointerId, { x: e.clientX, y: e.clientY });
    rest();
  };
  canvas.onpointermove = (e) => {
    const last = hands.get(e.pointerId);
    if (!last) return;
    const gap = hands.size === 2 ? apart() : 0;
    hands.set(e.pointerId, { x: e.clientX, y: e.clientY });
    if (gap) return enlarge(apart() / gap);
    spin((e.clientX - last.x) * 8e-3, (e.clientY - last.y) * 8e-3);
    ask();
  };
  canvas.onpointerup = canvas.onpointercancel = (e) => hands.delete(e.pointerId);
  canvas.addEventListener("wheel", (e) => {  // a page that is scrolled past stays scrollable
    if (document.activeElement !== canvas && !e.ctrlKey) return;
    e.preventDefault();
    enlarge(Math.exp(-Math.sign(e.deltaY) * Math.min(60, Math.abs(e.deltaY)) * 3e-3));
  }, { passive: false });
  canvas.onkeydown = (e) => {
    const closer = () => enlarge(1.15), keys = {
      ArrowLeft: () => spin(-0.1, 0), ArrowRight: () => spin(0.1, 0), ArrowUp: () => spin(0, -0.1), ArrowDown: () => spin(0, 0.1),
      "+": closer, "=": closer, "-": () => enlarge(1 / 1.15), 0: reset, Home: reset, " ": () => rest(!spinning) };
    if (!keys[e.key] || e.ctrlKey || e.metaKey || e.altKey) return;
    e.preventDefault();
    if (e.key !== " ") rest();
    keys[e.key]();
    ask();
  };
  canvas.tabIndex = 0;
  canvas.id = `${figure.id}-canvas`;
  canvas.setAttribute("role", "application");
  still.addEventListener("change", () => { if (still.matches) rest(); });
  dark.addEventListener("change", read);
  new ResizeObserver(ask).observe(canvas);
  new IntersectionObserver(([e]) => { visible = e.isIntersecting; ask(); }).observe(canvas);
  figure.prepend(bar, canvas);
  figure.querySelector("figcaption").append(
    " Drag or arrow keys turn it; pinch, + and \u2212 zoom, and so does the wheel once it was clicked.");
  read();
  rest(spinning);
  furnish();
}
