/** The machine that the numbers belong to, and how busy it was. */
import { readdirSync, readFileSync } from 'node:fs';
import { cpus, release, totalmem } from 'node:os';
import { setTimeout as delay } from 'node:timers/promises';

export interface Machine {
  readonly cpu: string;
  readonly cores: number;
  readonly kernel: string;
  readonly memoryGb: number;
}

export function describeMachine(): Machine {
  const all = cpus();
  return {
    cpu: all[0]?.model ?? 'unknown',
    cores: all.length,
    kernel: release(),
    memoryGb: Math.round(totalmem() / 2 ** 30),
  };
}

/**
 * The processors of the two ends of the traffic. Where both ends share one, a round trip is a tenth of what it is where
 * they do not: the scheduler's choice must not decide. Data planes run where the scheduler puts them.
 */
export const ends: Readonly<Record<'a' | 'b' | 'c', number>> = endsOf(readFileSync('/proc/self/status', 'utf8'));

/** The third host only ever sends: it shares the processor of the other sender. */
function endsOf(status: string): { readonly a: number; readonly b: number; readonly c: number } {
  const list = /^Cpus_allowed_list:\s+(\S+)$/m.exec(status)?.[1] ?? '0';
  const numbers = list.split(/[,-]/).map(Number);
  const [first = 0] = numbers;
  return { a: first, b: numbers.at(-1) ?? first, c: first };
}

const ticksPerSecond = 100;

/** Seconds that the processors of the machine were busy since it started, interrupts included, stolen time not. */
export function busySeconds(): number {
  const [, ...fields] = (readFileSync('/proc/stat', 'utf8').split('\n')[0] ?? '').split(/\s+/).map(Number);
  const [user = 0, nice = 0, system = 0, , , irq = 0, softirq = 0] = fields;
  return (user + nice + system + irq + softirq) / ticksPerSecond;
}

const sampleMs = 100;
/** Of one core. */
const quietLoad = 0.2;

/** Waits for a moment without other work on the machine, but not for ever: a shared machine may never have one. */
export class Quiet {
  readonly #limitMs: number;
  #waitedMs = 0;
  readonly loads: number[];

  /** @param limitMs for all waits together @param loads of the run that this one goes on with */
  constructor(limitMs: number, loads: readonly number[] = []) {
    this.#limitMs = limitMs;
    this.loads = [...loads];
  }

  /** Notes what others used of one core when it gave up waiting, or found it quiet. */
  async wait(): Promise<void> {
    for (;;) {
      const before = busySeconds();
      const began = performance.now();
      await delay(sampleMs);
      const tookMs = performance.now() - began;
      const load = ((busySeconds() - before) * 1000) / tookMs;
      if (load > quietLoad && this.#waitedMs < this.#limitMs) {
        this.#waitedMs += tookMs;
        continue;
      }
      this.loads.push(load);
      return;
    }
  }

  /** The share of moments that were not quiet. */
  get disturbed(): number {
    return this.loads.filter(load => load > quietLoad).length / Math.max(1, this.loads.length);
  }
}

/** What all threads of these processes ran, to the nanosecond. */
export function ranSeconds(pids: readonly number[]): number {
  const threads = pids.flatMap(pid => readdirSync(`/proc/${pid}/task`).map(thread => `/proc/${pid}/task/${thread}`));
  const ns = threads.map(path => Number(readFileSync(`${path}/schedstat`, 'utf8').split(' ')[0]));
  return ns.reduce((sum, one) => sum + one, 0) / 1e9;
}

/** Resident memory of processes, in MB. */
export function residentMb(pids: readonly number[]): number {
  const kb = pids.map(pid =>
    Number(/^VmRSS:\s+(\d+) kB$/m.exec(readFileSync(`/proc/${pid}/status`, 'utf8'))?.[1] ?? 0),
  );
  return kb.reduce((sum, one) => sum + one, 0) / 1024;
}
