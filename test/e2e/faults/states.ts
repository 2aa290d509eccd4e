/** The state log of one host: every 100 ms what its daemon says, what stands in its kernel and what it costs. */
import { readdirSync, readFileSync, readlinkSync, statSync } from 'node:fs';
import { request } from 'node:http';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { setTimeout as delay } from 'node:timers/promises';
import type { Status } from '../../../src/agent/status.js';
import type { LabHost } from '../../support/lab-host.js';
import { start, type Running } from '../../support/tools.js';
import type { DaemonState, ProcessState, RunLog, StateLine } from './log.js';

const everyMs = 100;
/** A busy machine is no dead daemon. */
const askMs = 1500;
/** rtm_protocol of our routes, as iproute2 prints it. */
const ourProtocol = '167';
const ticksPerSecond = 100;

export class States {
  readonly #host: LabHost;
  readonly #log: RunLog;
  readonly #kernel: KernelView;
  readonly #life = new AbortController();
  readonly #done: Promise<void>;

  constructor(host: LabHost, log: RunLog) {
    this.#host = host;
    this.#log = log;
    this.#kernel = new KernelView(host.spaces.name(host.letter));
    this.#done = this.#record();
  }

  async close(): Promise<void> {
    this.#life.abort();
    await this.#done;
    this.#kernel.close();
  }

  async #record(): Promise<void> {
    const { signal } = this.#life;
    while (!signal.aborted) {
      const begun = performance.now();
      const line = await this.#look();
      if (line && !signal.aborted) this.#log.add(line);
      await delay(Math.max(0, everyMs - (performance.now() - begun)), undefined, { signal }).catch(() => {});
    }
  }

  async #look(): Promise<StateLine | undefined> {
    const { letter } = this.#host;
    const atMs = this.#log.now();
    const [daemon, routes] = await Promise.all([askDaemon(this.#host), this.#kernel.routes()]);
    if (!routes) return undefined;
    const process = readProcess(this.#host);
    return { kind: 'state', atMs, untilMs: this.#log.now(), host: letter, daemon, routes, process };
  }
}

/** Null when nobody answers: there is no daemon, or it was stopped. */
export async function askDaemon(host: LabHost): Promise<DaemonState | null> {
  try {
    return summary(await askStatus(join(host.runDir, 'tartand.sock')));
  } catch {
    return null;
  }
}

function askStatus(socketPath: string): Promise<Status> {
  return new Promise((resolve, reject) => {
    const options = { socketPath, path: '/status', agent: false, signal: AbortSignal.timeout(askMs) };
    const question = request(options, answer => {
      let text = '';
      answer.setEncoding('utf8').on('data', (part: string) => (text += part));
      answer.on('error', reject).on('end', () => resolve(JSON.parse(text) as Status));
    });
    question.on('error', reject);
    question.end();
  });
}

function summary({ node, phase, ready, lease, peers, datapath }: Status): DaemonState {
  const adopted = datapath !== null && datapath.pid !== null;
  return {
    nodeId: node.id,
    phase,
    ready,
    subnet: lease?.subnet ?? null,
    lease: lease?.state ?? null,
    deadlineSeconds: lease?.deadlineSeconds ?? null,
    peers: Object.fromEntries(peers.map(({ subnet, publicIp }) => [subnet, publicIp])),
    adopted: adopted && datapath.generationAdopted === datapath.generationPublished,
    received: datapath?.counters['rx_ok'] ?? 0,
    transmitted: datapath?.counters['tx_ok'] ?? 0,
  };
}

/** One `ip` for the whole run, asked over and over: a process a question would cost more than what is measured. */
class KernelView {
  readonly #ip: Running;
  readonly #answers: AsyncIterator<string>;

  constructor(namespace: string) {
    this.#ip = start(['ip', '-n', namespace, '-j', '-force', '-batch', '-']);
    this.#ip.stderr.resume();
    this.#answers = createInterface(this.#ip.stdout)[Symbol.asyncIterator]();
  }

  async routes(): Promise<StateLine['routes'] | undefined> {
    this.#ip.stdin.write('route show table main\nrule show\n');
    const routes = await this.#answer();
    const rules = await this.#answer();
    if (!routes || !rules) return undefined;
    const isOurs = (route: Row): boolean => route['protocol'] === ourProtocol;
    return {
      ours: routes.filter(isOurs).map(route => JSON.stringify(route)),
      foreign: [...routes.filter(route => !isOurs(route)), ...rules].map(row => JSON.stringify(row)),
    };
  }

  close(): void {
    this.#ip.stdin.end();
  }

  async #answer(): Promise<readonly Row[] | undefined> {
    const { value, done } = await this.#answers.next();
    return done ? undefined : (JSON.parse(value) as readonly Row[]);
  }
}

type Row = Readonly<Record<string, unknown>>;

/** proc(5): what the daemon has used and what it holds. */
function readProcess(host: LabHost): ProcessState | null {
  try {
    const { pid } = host.daemon;
    const stat = readFileSync(`/proc/${pid}/stat`, 'latin1');
    const [userTicks = 0, systemTicks = 0] = stat.slice(stat.lastIndexOf(')')).split(' ').slice(12, 14).map(Number);
    const pages = Number(readFileSync(`/proc/${pid}/statm`, 'latin1').split(' ')[1]);
    return {
      pid,
      cpuMs: ((userTicks + systemTicks) * 1000) / ticksPerSecond,
      residentBytes: pages * 4096,
      descriptors: countDescriptors(pid),
      logBytes: statSync(join(host.spaces.directory, `${host.letter}.log`)).size,
    };
  } catch {
    return null;
  }
}

/** Node opens the files of all modules at once while it loads them: those are not the daemon's. */
export function countDescriptors(pid: number): number {
  const directory = `/proc/${pid}/fd`;
  return readdirSync(directory).filter(name => {
    try {
      return !/\.[cm]?js$/.test(readlinkSync(join(directory, name)));
    } catch {
      // The daemon closed it between the two calls.
      return false;
    }
  }).length;
}
