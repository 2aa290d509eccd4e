/** The Grafana dashboard as a document: what Grafana would show without a word. Its queries: test/e2e/metrics.test.ts. */
import { readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { expect, it } from 'vitest';

interface Panel {
  readonly id: number;
  readonly type: string;
  readonly title: string;
  readonly description?: string;
  readonly gridPos: { readonly h: number; readonly w: number; readonly x: number; readonly y: number };
  readonly targets?: readonly { readonly refId: string; readonly datasource: { readonly uid: string } }[];
}

const text = readFileSync(fileURLToPath(new URL('../../config/grafana/tartan.json', import.meta.url)), 'utf8');
const { panels, templating } = JSON.parse(text) as {
  readonly panels: readonly Panel[];
  readonly templating: { readonly list: readonly { readonly name: string }[] };
};
const graphs = panels.filter(({ type }) => type !== 'row');

it('has panels with an id, a title and a word about what they show', () => {
  expect(graphs.length).toBeGreaterThan(20);
  expect(new Set(panels.map(({ id }) => id)).size).toBe(panels.length);
  expect(graphs.filter(({ title, description }) => title === '' || !description?.endsWith('.'))).toEqual([]);
});

it('has no two panels in one place, and none beyond the 24 columns', () => {
  const taken = new Map<string, string>();
  for (const { title, gridPos } of panels)
    for (let x = gridPos.x; x < gridPos.x + gridPos.w; x++)
      for (let y = gridPos.y; y < gridPos.y + gridPos.h; y++) {
        expect([x < 24, taken.get(`${x} ${y}`), title]).toEqual([true, undefined, title]);
        taken.set(`${x} ${y}`, title);
      }
});

it('asks the data source that was chosen, for the hosts that were chosen', () => {
  expect(templating.list.map(({ name }) => name)).toEqual(['datasource', 'instance']);
  for (const { title, targets = [] } of graphs) {
    expect(targets.map(({ refId }) => refId)).toEqual(targets.map((_, at) => String.fromCharCode(65 + at)));
    expect([title, ...new Set(targets.map(({ datasource }) => datasource.uid))]).toEqual([title, '${datasource}']);
  }
  const expressions = [...text.matchAll(/"expr": "(.*)"/g)].map(([, expression]) => expression);
  expect(expressions.filter(expression => !expression?.includes('instance=~\\"$instance\\"'))).toEqual([]);
});
