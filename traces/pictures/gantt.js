// The body of a callback of the page: fills the Gantt chart and the curves for the window that is
// in view, and marks a task that was clicked, with those it waited for and those that waited for it.
// Tasks are sorted by lane and start; times are in the axis's unit, `seconds` long.

// Up to so many tasks in view are drawn one by one, more as kernels' shares of stretches of time.
const SINGLE = 4000;
// Stretches of all lanes together.
const STRETCHES = 12000;
// Pixels of a curve's window: four points each are enough.
const COLUMNS = 1000;

const HALF = 0.42;
const NONE = "unavailable";

function prefixed(value, unit) {
  if (!Number.isFinite(value)) return NONE;
  const sizes = [[1e12, "T"], [1e9, "G"], [1e6, "M"], [1e3, "k"], [1, ""], [1e-3, "m"], [1e-6, "µ"]];
  const [size, prefix] = sizes.find(([least]) => Math.abs(value) >= least) ?? [1e-9, "n"];
  return `${Number((value / size).toPrecision(4))} ${prefix}${unit}`;
}

function time(value, unit, digits = 6) {
  return `${Number(value.toPrecision(digits))} ${unit}`;
}

function columns(...names) {
  return Object.fromEntries(names.map((name) => [name, []]));
}

function lower(sorted, value) {
  let low = 0, high = sorted.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (sorted[middle] < value) low = middle + 1; else high = middle;
  }
  return low;
}

class View {
  constructor(parts) {
    Object.assign(this, parts);
    this.all = parts.tasks.data;
    this.count = this.all.start.length;
    this.chosen = -1;
    this.before = new Set();
    this.after = new Set();
    this.waiting = false;
  }

  on(event) {
    // two clicks on two tasks may be as quick as a double click
    if (["tap", "doubletap"].includes(event.event_name)) this.pick(event.x, event.y);
    // a wheel turns faster than a chart is drawn
    if (this.waiting) return;
    this.waiting = true;
    requestAnimationFrame(() => {
      this.waiting = false;
      this.refresh();
    });
  }

  refresh() {
    const window_ = this.window();
    const rows = this.inside(window_);
    const single = rows.length <= SINGLE;
    this.bars.data = this.single(single ? rows : []);
    this.bins.data = this.shares(single ? null : window_);
    const many = rows.length.toLocaleString("en").replaceAll(",", "\u202f");
    const span = window_.right - window_.left;
    const width = time(span / this.stretches(window_), this.unit, 3);
    this.chart.title.text = single
      ? `${many} tasks in view`
      : `${many} tasks in view, as shares of ${width}; zoom in to see each`;
    this.curves.forEach(([whole, shown]) => {
      shown.data = this.curve(whole.data, window_);
    });
  }

  window() {
    const { x_range: x, y_range: y } = this.chart;
    const [left, right] = [Math.min(x.start, x.end), Math.max(x.start, x.end)];
    const [low, high] = [Math.min(y.start, y.end), Math.max(y.start, y.end)];
    const first = Math.max(0, Math.ceil(low - 0.5));
    return { left, right, first, last: Math.min(this.lanes.length - 1, Math.floor(high + 0.5)) };
  }

  pixels(count) {
    const { x_range: x, inner_width: width } = this.chart;
    return count * Math.abs(x.end - x.start) / (width || 1000);
  }

  inside({ left, right, first, last }) {
    const { start, end, lane } = this.all;
    const rows = [];
    for (let row = 0; row < this.count; row++) {
      if (end[row] >= left && start[row] <= right && lane[row] >= first && lane[row] <= last) {
        rows.push(row);
      }
    }
    return rows;
  }

  // -- tasks one by one ---------------------------------------------------------------------------

  single(rows) {
    const found = columns(
      "left", "right", "top", "bottom", "colour", "alpha", "row", "task", "label", "step",
      "worker", "from", "lasting", "format", "rate", "joules",
    );
    const all = this.all;
    for (const row of rows) {
      this.place(found, row);
      const seconds = (all.end[row] - all.start[row]) * this.seconds;
      found.colour.push(this.colours[all.kernel[row]]);
      found.alpha.push(this.chosen < 0 || this.related(row) ? 1 : 0.2);
      found.row.push(row);
      found.task.push(all.task[row]);
      found.label.push(this.label(row));
      found.step.push(all.k[row] < 0 ? "none" : `${all.k[row]}`);
      found.worker.push(this.lanes[all.lane[row]]);
      found.from.push(time(all.start[row], this.unit));
      found.lasting.push(prefixed(seconds, "s"));
      found.format.push(this.format(row));
      found.rate.push(seconds > 0 && all.flops[row] > 0
        ? `${Number((all.flops[row] / seconds / 1e9).toPrecision(4))}` : "none");
      found.joules.push(prefixed(all.joules[row], "J"));
    }
    return found;
  }

  place(found, row) {
    const { start, end, lane } = this.all;
    found.left.push(start[row]);
    found.right.push(end[row]);
    found.top.push(lane[row] - HALF);
    found.bottom.push(lane[row] + HALF);
  }

  label(row) {
    const { kernel, matrix, i, j, tile_tasks } = this.all;
    const tile = matrix[row] < 0 ? "" : ` ${this.matrices[matrix[row]]}(${i[row]}, ${j[row]})`;
    const fused = tile_tasks[row] > 1 ? `, ${tile_tasks[row]} tile tasks` : "";
    return this.kernels[kernel[row]] + tile + fused;
  }

  format(row) {
    const { format, compression, lr_rank } = this.all;
    const packed = this.compressions[compression[row]];
    return this.formats[format[row]]
      + (packed == "none" ? "" : `, ${packed}`)
      + (lr_rank[row] < 0 ? "" : `, tile rank ${lr_rank[row]}`);
  }

  // -- many tasks ---------------------------------------------------------------------------------

  stretches({ first, last }) {
    return Math.max(20, Math.min(600, Math.floor(STRETCHES / Math.max(1, last - first + 1))));
  }

  shares(window_) {
    const found = columns(
      "left", "right", "top", "bottom", "colour", "kernel", "share", "busy", "worker", "from", "to",
    );
    if (window_ == null) return found;
    const bins = this.stretches(window_), kinds = this.kernels.length;
    let row = lower(this.all.lane, window_.first);
    for (let lane = window_.first; lane <= window_.last; lane++) {
      const busy = new Float64Array(bins * kinds);
      for (; row < this.count && this.all.lane[row] == lane; row++) {
        this.add(busy, row, window_, bins);
      }
      this.stack(found, busy, lane, window_, bins);
    }
    return found;
  }

  add(busy, row, { left, right }, bins) {
    const width = (right - left) / bins, kinds = this.kernels.length;
    const start = Math.max(this.all.start[row], left), end = Math.min(this.all.end[row], right);
    if (!(start < end)) return;
    const last = Math.min(bins - 1, Math.floor((end - left) / width));
    for (let bin = Math.floor((start - left) / width); bin <= last; bin++) {
      const from = Math.max(start, left + bin * width);
      const to = Math.min(end, left + (bin + 1) * width);
      busy[bin * kinds + this.all.kernel[row]] += Math.max(0, to - from) / width;
    }
  }

  // The shares of a stretch stand one upon the other, idle time is what is left on top.
  stack(found, busy, lane, { left, right }, bins) {
    const width = (right - left) / bins, kinds = this.kernels.length;
    // a third of a pixel, lest the background shines through between neighbours
    const overlap = this.pixels(1 / 3);
    for (let bin = 0; bin < bins; bin++) {
      const here = busy.subarray(bin * kinds, (bin + 1) * kinds);
      const total = here.reduce((sum, share) => sum + share, 0);
      let floor = lane + HALF;
      for (let kernel = 0; kernel < kinds; kernel++) {
        if (here[kernel] < 1e-3) continue;
        // on a lane of a foreign trace tasks may overlap
        const height = 2 * HALF * here[kernel] / Math.max(1, total);
        found.left.push(left + bin * width);
        found.right.push(left + (bin + 1) * width + overlap);
        found.bottom.push(floor);
        found.top.push(floor -= height);
        found.colour.push(this.colours[kernel]);
        found.kernel.push(this.kernels[kernel]);
        found.share.push(`${(100 * here[kernel]).toFixed(1)} %`);
        found.busy.push(`${(100 * total).toFixed(1)} %`);
        found.worker.push(this.lanes[lane]);
        found.from.push(time(left + bin * width, this.unit));
        found.to.push(time(left + (bin + 1) * width, this.unit));
      }
    }
  }

  // Of each column of pixels the first, least, greatest and last value: nothing else would be seen.
  curve({ time: times, value: values }, { left, right }) {
    const from = Math.max(0, lower(times, left) - 1);
    const to = Math.min(times.length, lower(times, right) + 1);
    const size = Math.ceil((to - from) / COLUMNS);
    if (size <= 4) return { time: times.slice(from, to), value: values.slice(from, to) };
    const found = { time: [], value: [] };
    for (let a = from; a < to; a += size) {
      const b = Math.min(to, a + size);
      let least = a, greatest = a;
      for (let at = a; at < b; at++) {
        if (values[at] < values[least]) least = at;
        if (values[at] > values[greatest]) greatest = at;
      }
      for (const at of [...new Set([a, least, greatest, b - 1])].sort((x, y) => x - y)) {
        found.time.push(times[at]);
        found.value.push(values[at]);
      }
    }
    return found;
  }

  // -- a task that was clicked --------------------------------------------------------------------

  pick(x, y) {
    const lane = Math.round(y), { start, end } = this.all;
    // so that a task narrower than a pixel can be hit
    let best = this.pixels(2);
    this.chosen = -1;
    if (Math.abs(y - lane) <= HALF) {
      for (let row = lower(this.all.lane, lane); this.all.lane[row] == lane; row++) {
        const distance = Math.max(start[row] - x, x - end[row], 0);
        if (distance < best) [best, this.chosen] = [distance, row];
      }
    }
    this.mark();
  }

  related(row) {
    return row == this.chosen || this.before.has(row) || this.after.has(row);
  }

  mark() {
    const { source, target } = this.edges.data, chosen = this.chosen;
    this.before.clear();
    this.after.clear();
    for (let edge = 0; chosen >= 0 && edge < source.length; edge++) {
      if (target[edge] == chosen) this.before.add(source[edge]);
      if (source[edge] == chosen) this.after.add(target[edge]);
    }
    const marks = columns("left", "right", "top", "bottom", "role", "task", "width");
    const links = columns("x0", "y0", "x1", "y1", "colour");
    const { start, end, lane, task } = this.all;
    const add = (row, role) => {
      this.place(marks, row);
      marks.role.push(role);
      marks.task.push(task[row]);
      marks.width.push(role == "chosen" ? 3 : 1.5);
    };
    const link = (from, to, colour) => {
      links.x0.push(end[from]);
      links.y0.push(lane[from]);
      links.x1.push(start[to]);
      links.y1.push(lane[to]);
      links.colour.push(colour);
    };
    this.before.forEach((row) => { add(row, "before"); link(row, chosen, this.tints[0]); });
    this.after.forEach((row) => { add(row, "after"); link(chosen, row, this.tints[1]); });
    if (chosen >= 0) add(chosen, "chosen");
    this.marks.data = marks;
    this.links.data = links;
    this.picked.text = this.story();
  }

  story() {
    const row = this.chosen;
    if (row < 0) return this.hint;
    const took = prefixed((this.all.end[row] - this.all.start[row]) * this.seconds, "s");
    return `Task ${this.all.task[row]}: ${this.label(row)}, ${took} on ${this.lanes[this.all.lane[row]]}; `
      + `it waited for ${this.before.size} (lines to the left), ${this.after.size} waited for it `
      + "(lines to the right). A click beside the tasks lets go of it.";
  }
}

tasks.view ??= new View({
  tasks, edges, chart, bars, bins, marks, links, curves, picked, kernels, colours, matrices, formats,
  compressions, lanes, unit, seconds, tints, hint: picked.text,
});
tasks.view.on(cb_obj);
