/**
 * Metrics, rules and dashboard beside a real Prometheus that scrapes three hosts: promtool finds nothing wrong, and every
 * query of every panel has an answer. The long part (test/long/metrics.test.ts) fires every alert by a real fault.
 */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { panelQueries } from '../support/dashboard.js';
import { LabPrometheus, metricsFlags, metricsPort, rulesFile } from '../support/prometheus.js';
import { attempt, needTool, root, run, until } from '../support/tools.js';
import { useLab } from '../support/use-lab.js';

const promtool = needTool('TARTAN_PROMTOOL', 'promtool');
/** One host has no engine kernel: why the others reach it by user space has a panel. */
const engines = { a: 'kernel', b: 'kernel', c: 'user' };
const lab = useLab({ nodes: ['a', 'b', 'c'] }, async opened => {
  const engineOf = (letter: string): string => engines[letter as keyof typeof engines];
  await Promise.all(
    opened.hosts.map(host => host.bringUp({ ...metricsFlags(host.address), engine: engineOf(host.letter) })),
  );
  await opened.waitForRoutes();
});

/** The text of a scrape of host a, asked for as Prometheus does. */
async function scrape(path = '/metrics'): Promise<string> {
  const url = `http://${lab().node('a').address}:${metricsPort}${path}`;
  return run(lab().spaces.inside('e', [process.execPath, '-e', fetcher, url]));
}
const fetcher = `fetch(process.argv[1]).then(async answer => process.stdout.write(await answer.text()))`;

test('promtool finds nothing wrong with the rules, and each alert fires when it should', async () => {
  const files = ['tartan.rules', 'tartan.rules-day'].map(name => join(root, `test/support/${name}.test.yml`));
  expect(await run([promtool, 'check', 'rules', rulesFile])).toContain('SUCCESS');
  expect(await run([promtool, 'test', 'rules', ...files])).toContain('SUCCESS');
  const alerts = [...readFileSync(rulesFile, 'utf8').matchAll(/- alert: (\w+)/g)].map(([, name]) => name);
  const tests = files.map(file => readFileSync(file, 'utf8')).join('');
  const tested = [...tests.matchAll(/- name: (\w+)/g)].map(([, name]) => name);
  expect(alerts.length).toBeGreaterThan(10);
  expect(tested).toEqual(alerts);
});

test('promtool finds nothing wrong with the metrics, which have all that the rules name', async () => {
  const heard = async (): Promise<string | false> => {
    const body = await scrape();
    return /^tartan_peer_up/m.test(body) && body;
  };
  const text = await until('a peer that was heard', heard, 30_000);
  expect(await attempt([promtool, 'check', 'metrics'], { input: text })).toEqual({ status: 0, stdout: '', stderr: '' });
  const named = new Set(readFileSync(rulesFile, 'utf8').match(/\btartan_\w+/g));
  expect(named.size).toBeGreaterThan(10);
  expect([...named].filter(name => !new RegExp(`^# TYPE ${name} `, 'm').test(text))).toEqual([]);
});

test('every query of every panel has an answer', async () => {
  const [a, b] = [lab().node('a'), lab().node('b')];
  const prometheus = await LabPrometheus.start(lab());
  const flow = await lab().flow(a, b, 100);
  const queries = panelQueries('10s');
  expect(queries.length).toBeGreaterThan(40);
  const silent = async (): Promise<readonly string[]> => {
    const answers = await prometheus.queries(queries.map(({ expression }) => expression));
    return queries.flatMap(({ panel, expression }, at) => (answers[at]?.length ? [] : [`${panel}: ${expression}`]));
  };
  await until('every panel has data', async () => (await silent()).length === 0, 30_000).catch(() => {});
  expect(await silent()).toEqual([]);
  const rate = `rate(tartan_tx_packets_total{instance=~"${a.address}:.*"}[10s])`;
  const sent = async (): Promise<number> => (await prometheus.queries([rate]))[0]?.[0]?.value ?? 0;
  await until('the flow is seen', async () => (await sent()) > 20, 15_000);
  const [byKernel] = queries.filter(({ panel }) => panel === 'Packets by engine');
  const carried = async (): Promise<number> => (await prometheus.query(byKernel?.expression ?? ''))[0]?.value ?? 0;
  await until('the flow goes by the kernel', async () => (await carried()) > 20, 20_000);
  const [reasons] = queries.filter(({ panel }) => panel === 'Peers by user space');
  const told = (await prometheus.query(reasons?.expression ?? '')).map(({ labels }) => labels);
  expect(told).toContainEqual(
    expect.objectContaining({ peer: lab().node('c').subnet, reason: 'its lease does not announce the kernel engine' }),
  );
  await flow.stop();
});
