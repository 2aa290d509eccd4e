/**
 * Our data plane in a lab: on each host tartan-host.ts drives the real engine adapter of a build, which starts the real
 * tartan-datapath. No etcd and no lease: what is measured is the data plane, and tables of any size can be published.
 */
import { mkdirSync } from 'node:fs';
import { join } from 'node:path';
import type { Engine } from './goals.js';
import { underUnit } from './kernel-engine.js';
import type { Lab, Side } from './lab.js';
import { configureTun, kernelMtu, udpMtu } from './overlay.js';
import { Running, tree } from './process.js';
import type { HostCall, Lateness } from './tartan-host.js';

/** 65,536 peers take a second, and many times that beside much other work. */
const fillLimitMs = 120_000;

/** One host's end. */
export class TartanHost {
  readonly #process: Running;
  /** Of the data process. */
  readonly pid: number;
  readonly warnings: readonly string[];

  private constructor(process: Running, ready: { readonly pid: number; readonly warnings: readonly string[] }) {
    this.#process = process;
    this.pid = ready.pid;
    this.warnings = ready.warnings;
  }

  static async open(lab: Lab, side: Side, dist: string, engine: Engine, runDir: string): Promise<TartanHost> {
    const script = join(tree, '.cache/bench/test/bench/tartan-host.js');
    const unit = engine === 'kernel' ? underUnit() : [];
    const command = [...unit, 'node', script, side, lab.peersOf(side).join(','), dist, engine, runDir];
    const process = new Running(lab.on(side, command));
    return new TartanHost(process, JSON.parse(await process.line(/^\{/)));
  }

  /** Publishes a table of so many routes, the others' prefixes of so many lengths, and waits until it is adopted. */
  async fill(routes: number, lengths: number): Promise<void> {
    await this.#call({ call: 'fill', routes, lengths }, fillLimitMs);
  }

  /** Publishes a changed table again and again; how long each took to be adopted by every thread. */
  async update(seconds: number, everyMs: number): Promise<Lateness> {
    return JSON.parse(await this.#call({ call: 'update', seconds, everyMs }, seconds * 1000 + 10_000));
  }

  /** The counters of the data process. */
  async counters(): Promise<Readonly<Record<string, number>>> {
    return JSON.parse(await this.#call({ call: 'counters' }, 10_000));
  }

  #call(call: HostCall, limitMs: number): Promise<string> {
    this.#process.tell(`${JSON.stringify(call)}\n`);
    return this.#process.line(/^\{/, limitMs);
  }
}

let labs = 0;

/** @returns the ends in the order of the lab's hosts */
export async function openTartan(lab: Lab, dist: string, engine: Engine = 'user'): Promise<readonly TartanHost[]> {
  // In the private /run (run.sh): gone with the bench.
  const directory = `/run/tartan-bench-${labs++}`;
  const opened: TartanHost[] = [];
  for (const side of lab.sides) {
    const runDir = join(directory, side);
    mkdirSync(runDir, { recursive: true });
    opened.push(await TartanHost.open(lab, side, dist, engine, runDir));
  }
  const mtu = engine === 'kernel' ? kernelMtu : udpMtu;
  for (const side of lab.sides) await configureTun(lab, side, 'tartan0', mtu);
  return opened;
}
