// The body of a callback of the page: fills the map of a matrix as the two choices say.

const map = maps[Number(which.value)].data;
const count = map.i.length;
const colour = {
  owner: (tile) => ranks[map.rank[tile]],
  worker: (tile) => lanes[map.lane[tile]],
  format: (tile) => formats[map.format[tile]],
  time: (tile) => ramp[map.shade[tile]],
}[by.value];
const tile = (text) => Array.from({ length: count }, (_, at) => text(at));
shown.data = {
  i: map.i,
  j: map.j,
  colour: tile(colour),
  name: tile((at) => `${map_names[Number(which.value)]}(${map.i[at]}, ${map.j[at]})`),
  rank: map.rank,
  worker: tile((at) => lane_names[map.lane[at]]),
  format: tile((at) => format_names[map.format[at]]),
  seconds: map.words,
  tasks: map.tasks,
};
const [rows, cols] = sizes[Number(which.value)], most = Math.max(rows, cols);
// row 0 on top, and tiles as squares
Object.assign(chart.x_range, { start: -0.5, end: most - 0.5 });
Object.assign(chart.y_range, { start: most - 0.5, end: -0.5 });
legend.text = legends[Number(which.value)][by.options.findIndex(([value]) => value == by.value)];
