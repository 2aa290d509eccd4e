/**
 * A real Prometheus in the namespace of a lab's etcd, which scrapes the lab's hosts each second by the rules of
 * config/prometheus. The reaper ends it with its namespace.
 */
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import type { Lab } from './lab.js';
import { needTool, root, run, startService, until } from './tools.js';

export const rulesFile = join(root, 'config/prometheus/tartan.rules.yml');
export const metricsPort = '8470';

/** What a host of the lab is started with, so that Prometheus can scrape it. */
export function metricsFlags(address: string): Readonly<Record<string, string>> {
  return { 'healthz-ip': address, 'healthz-port': metricsPort, metrics: 'true' };
}

export interface Series {
  readonly labels: Readonly<Record<string, string>>;
  readonly value: number;
}

export interface Alert {
  readonly name: string;
  readonly state: 'pending' | 'firing';
  readonly labels: Readonly<Record<string, string>>;
  readonly annotations: Readonly<Record<string, string>>;
}

interface Answer {
  readonly status: string;
  readonly error?: string;
  readonly data?: {
    readonly resultType?: string;
    readonly result?: readonly { readonly metric: Record<string, string>; readonly value: readonly [number, string] }[];
    readonly alerts?: readonly (Pick<Alert, 'state' | 'annotations'> & { readonly labels: Record<string, string> })[];
  };
}

/** Asks each path given as JSON on standard input, and prints the answers as JSON. */
const asker = `
const paths = JSON.parse(require('node:fs').readFileSync(0, 'utf8'));
const ask = async path => (await fetch('http://127.0.0.1:9090' + path)).json();
Promise.all(paths.map(ask)).then(answers => process.stdout.write(JSON.stringify(answers)));
`;

export class LabPrometheus {
  readonly #lab: Lab;

  private constructor(lab: Lab) {
    this.#lab = lab;
  }

  /** @param alter changes the text of the rules, whose alerts wait for minutes */
  static async start(lab: Lab, alter: (rules: string) => string = text => text): Promise<LabPrometheus> {
    const directory = join(lab.spaces.directory, 'prometheus');
    mkdirSync(directory);
    writeFileSync(join(directory, 'tartan.rules.yml'), alter(readFileSync(rulesFile, 'utf8')));
    const targets = lab.hosts.map(({ address }) => `'${address}:${metricsPort}'`).join(', ');
    const config = `
global: { scrape_interval: 1s, scrape_timeout: 1s, evaluation_interval: 1s }
rule_files: [tartan.rules.yml]
scrape_configs:
  - job_name: tartan
    static_configs: [{ targets: [${targets}] }]
`;
    writeFileSync(join(directory, 'prometheus.yml'), config);
    const flags = {
      'config.file': join(directory, 'prometheus.yml'),
      'storage.tsdb.path': join(directory, 'data'),
      'web.listen-address': '127.0.0.1:9090',
      'log.level': 'warn',
    };
    const command = [
      needTool('TARTAN_PROMETHEUS', 'prometheus'),
      ...Object.entries(flags).map(([k, v]) => `--${k}=${v}`),
    ];
    startService(lab.spaces.inside('e', command), join(directory, 'log'));
    const prometheus = new LabPrometheus(lab);
    await until('Prometheus answers', async () => (await prometheus.query('vector(1)')).length === 1);
    return prometheus;
  }

  async query(expression: string): Promise<readonly Series[]> {
    const [result = []] = await this.queries([expression]);
    return result;
  }

  /** Fails with the expression that Prometheus refuses. */
  async queries(expressions: readonly string[]): Promise<readonly (readonly Series[])[]> {
    const answers = await this.#ask(expressions.map(text => `/api/v1/query?query=${encodeURIComponent(text)}`));
    return answers.map(({ status, error, data }, at) => {
      if (status !== 'success') throw new Error(`${expressions[at]}: ${error}`);
      return (data?.result ?? []).map(({ metric, value: [, value] }) => ({ labels: metric, value: Number(value) }));
    });
  }

  async alerts(): Promise<readonly Alert[]> {
    const [answer] = await this.#ask(['/api/v1/alerts']);
    return (answer?.data?.alerts ?? []).map(({ labels, state, annotations }) => ({
      name: labels['alertname'] ?? '',
      state,
      labels,
      annotations,
    }));
  }

  /** Waits until the alert fires. @returns the first one that matches */
  async fires(name: string, labels: Readonly<Record<string, string>> = {}, timeoutMs = 30_000): Promise<Alert> {
    const matches = (alert: Alert): boolean =>
      alert.name === name &&
      alert.state === 'firing' &&
      Object.entries(labels).every(([label, text]) => alert.labels[label] === text);
    return until(`the alert ${name} fires`, async () => (await this.alerts()).find(matches), timeoutMs);
  }

  /** Waits until the alert of that host does not fire any more. */
  async rests(name: string, instance: string, timeoutMs = 30_000): Promise<void> {
    const isThis = ({ name: fired, labels }: Alert): boolean => fired === name && labels['instance'] === instance;
    await until(`the alert ${name} rests`, async () => !(await this.alerts()).some(isThis), timeoutMs);
  }

  async #ask(paths: readonly string[]): Promise<readonly Answer[]> {
    const command = this.#lab.spaces.inside('e', [process.execPath, '-e', asker]);
    return JSON.parse(await run(command, { input: JSON.stringify(paths) })) as readonly Answer[];
  }
}
