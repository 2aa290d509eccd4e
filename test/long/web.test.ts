/** Five hundred hosts, each with 499 peers, in a real Chromium; and the pictures of the README, made anew. */
import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { Scope } from '../../src/lib/scope.js';
import { root } from '../support/tools.js';
import { openWebBed, shows, type WebBed } from '../support/web-bed.js';
import { webHosts } from '../support/web-hosts.js';

const scope = new Scope();
let bed: WebBed;

beforeAll(async () => {
  bed = await openWebBed(scope, { hosts: webHosts(500) });
});
afterAll(() => scope.close());

async function open({ browser, url }: WebBed, hash: string, view: 'host' | 'hosts'): Promise<number> {
  const begunMs = performance.now();
  await browser.visit('about:blank');
  await browser.visit(`${url}${hash}`);
  await browser.until(shows(view));
  // A frame was drawn.
  await browser.evaluate('new Promise(resolve => requestAnimationFrame(() => requestAnimationFrame(resolve)))');
  return performance.now() - begunMs;
}

test('the matrix of 500 hosts is shown within 2 s, and says what a cell means', async () => {
  const { browser, url } = bed;
  await browser.size(1280, 900);
  const bytes = (await (await fetch(`${url}data/matrix`)).text()).length;
  const times = [];
  for (let round = 0; round < 5; round++) times.push(await open(bed, '#hosts', 'hosts'));
  times.sort((a, b) => a - b);
  process.stdout.write(`500 hosts: ${bytes} bytes, shown in ${times.map(Math.round).join(', ')} ms\n`);
  expect(bytes).toBeLessThan(2_000_000);
  expect(times[2]).toBeLessThan(2000);
  const side = Number(await browser.evaluate('document.querySelector("canvas").width / 500'));
  // The host without a document is the last column: silent for every row.
  const line = `[...document.querySelector('canvas').getContext('2d').getImageData(0, ${100 * side}, ${500 * side}, 1).data]`;
  const pixels = (await browser.evaluate(line)) as readonly number[];
  const redness = (column: number): number => (pixels[column * side * 4] ?? 0) - (pixels[column * side * 4 + 1] ?? 0);
  expect(redness(499)).toBeGreaterThan(50);
  expect(redness(50)).toBeLessThan(0);
  await browser.evaluate(`document.querySelector('canvas').dispatchEvent(new MouseEvent('mousemove', {
    bubbles: true, clientX: document.querySelector('canvas').getBoundingClientRect().x + 499.5 * ${side},
    clientY: document.querySelector('canvas').getBoundingClientRect().y + 100.5 * ${side} }))`);
  const said = String(await browser.evaluate('document.getElementById("under").textContent'));
  expect(said).toMatch(/^worker-102, .* → worker-05, 10\.5\.4\.0\/24: silent; no ARP answer/);
});

test('one of them with its 499 peers, and back', async () => {
  const { browser } = bed;
  expect(await open(bed, '#host/100', 'hosts')).toBeLessThan(2000);
  expect(
    await browser.evaluate('document.querySelectorAll("section:has(input) tbody tr:not(:has(.note))").length'),
  ).toBe(200);
  await browser.evaluate(
    '[...document.querySelectorAll("button")].find(b => b.textContent === "Show all 499").click()',
  );
  expect(
    await browser.evaluate('document.querySelectorAll("section:has(input) tbody tr:not(:has(.note))").length'),
  ).toBe(499);
  expect(browser.complaints).toEqual([]);
});

test('the pictures of the README', async () => {
  const few = await openWebBed(scope, {
    hosts: webHosts(16),
    events: [
      { time: '2026-01-31T08:14:00Z', level: 'info', event: 'peer.up', message: '10.5.7.0/24 answers again' },
      {
        time: '2026-01-31T08:15:12Z',
        level: 'warn',
        event: 'peer.silent',
        message: '10.5.4.0/24 is silent: no ARP answer',
      },
    ],
  });
  const docs = join(root, 'docs');
  mkdirSync(docs, { recursive: true });
  await few.browser.size(1100, 700);
  await open(few, '#host', 'host');
  writeFileSync(join(docs, 'web-host.png'), await few.browser.screenshot());
  await open(few, '#hosts', 'hosts');
  writeFileSync(join(docs, 'web-matrix.png'), await few.browser.screenshot());
  expect(few.browser.complaints).toEqual([]);
});
