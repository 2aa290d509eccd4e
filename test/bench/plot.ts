/** The medians as an SVG: a panel for each group, a row for each metric, bars as long as their share of the longest. */
import { median, metricsOf, valuesOf, type Group } from './groups.js';

const barHeight = 12;
const rowGap = 10;
const panelGap = 30;
const labelWidth = 230;
const barWidth = 420;
const width = labelWidth + barWidth + 190;
const colours = ['#7f7f7f', '#1f77b4', '#d62728', '#2ca02c', '#9467bd', '#ff7f0e', '#17becf', '#bcbd22'];

export function plot(groups: readonly Group[]): string {
  const parts: string[] = [];
  let y = panelGap;
  for (const group of groups) {
    parts.push(text(10, y, group.title, 'font-weight="bold"'));
    y += rowGap;
    for (const metric of metricsOf(group).filter(one => one.ratio)) {
      const medians = group.columns.map(column => median(valuesOf(group, metric.name, column)));
      const longest = Math.max(...medians, Number.MIN_VALUE);
      parts.push(text(10, y + (barHeight * medians.length) / 2 + 4, `${metric.label}, ${metric.unit}`));
      for (const [i, value] of medians.entries()) {
        const length = (barWidth * value) / longest;
        const fill = colours[i % colours.length];
        const box = `x="${labelWidth}" y="${y}" width="${length.toFixed(1)}" height="${barHeight - 2}"`;
        parts.push(`<rect ${box} fill="${fill}"/>`);
        const label = `${group.columns[i]} ${value.toFixed(metric.digits)}`;
        parts.push(text(labelWidth + length + 5, y + barHeight - 3, label));
        y += barHeight;
      }
      y += rowGap;
    }
    y += panelGap;
  }
  const size = `width="${width}" height="${y}" viewBox="0 0 ${width} ${y}"`;
  const font = 'font-family="sans-serif" font-size="11"';
  const paper = `<rect width="${width}" height="${y}" fill="#fff"/>`;
  return `<svg xmlns="http://www.w3.org/2000/svg" ${size} ${font}>\n${[paper, ...parts].join('\n')}\n</svg>\n`;
}

function text(x: number, y: number, words: string, more = ''): string {
  const safe = words.replace(/&/g, '&amp;').replace(/</g, '&lt;');
  return `<text x="${x.toFixed(1)}" y="${y.toFixed(1)}" ${more}>${safe}</text>`;
}
