/**
 * What a run under faults leaves behind, one JSON line each: states of hosts, marks of the harness, what etcd's history
 * holds, and what became of the traffic. Times are milliseconds of one clock, so that the validator can replay a run
 * from these lines alone.
 */
import { appendFileSync } from 'node:fs';

/** One look at one host. */
export interface StateLine {
  readonly kind: 'state';
  readonly atMs: number;
  /** When the look was over: it tells of some moment between the two. */
  readonly untilMs: number;
  readonly host: string;
  /** Null while nobody answers on its status socket. */
  readonly daemon: DaemonState | null;
  readonly routes: { readonly ours: readonly string[]; readonly foreign: readonly string[] };
  /** Null while there is no such process. */
  readonly process: ProcessState | null;
}

export interface DaemonState {
  readonly nodeId: string;
  readonly phase: string;
  readonly ready: boolean;
  readonly subnet: string | null;
  readonly lease: string | null;
  /** Until the lease must have been renewed; null for one without an end. */
  readonly deadlineSeconds: number | null;
  /** Address of the owner by subnet. */
  readonly peers: Readonly<Record<string, string>>;
  /** The data plane works with the newest table. */
  readonly adopted: boolean;
  readonly received: number;
  readonly transmitted: number;
}

export interface ProcessState {
  readonly pid: number;
  readonly cpuMs: number;
  readonly residentBytes: number;
  readonly descriptors: number;
  /** Size of the daemon's log file. */
  readonly logBytes: number;
}

/** A fault lasts from its `inject` to its `converged` or `diverged`. */
export interface MarkLine {
  readonly kind: 'mark';
  readonly atMs: number;
  readonly mark: 'inject' | 'heal' | 'converged' | 'diverged';
  readonly fault: string;
  /** Hosts that may drop peers and be dropped while the fault lasts. */
  readonly mayGo: readonly string[];
}

/** One change in etcd; `operator` when the harness itself made it. */
export interface ChangeLine {
  readonly kind: 'put' | 'delete';
  readonly atMs: number;
  readonly revision: number;
  readonly key: string;
  /** Empty for a delete. */
  readonly value: string;
  readonly operator: boolean;
}

/** Another, empty cluster answers: revisions begin anew. */
export interface WipeLine {
  readonly kind: 'wiped';
  readonly atMs: number;
}

export interface FlowLine {
  readonly kind: 'flow';
  readonly atMs: number;
  readonly fault: string;
  readonly pair: string;
  readonly sent: number;
  readonly lost: number;
  /** What it may have lost; null: any number. */
  readonly lostMax: number | null;
  readonly firstLost: number;
  readonly lastLost: number;
  readonly duplicates: number;
  readonly reordered: number;
}

export type LogLine = StateLine | MarkLine | ChangeLine | WipeLine | FlowLine;

/** The lines of a run in the order they were said, in memory and, when a file is named, there too. */
export class RunLog {
  readonly lines: LogLine[] = [];
  readonly #begun = performance.now();
  readonly #file: string | undefined;

  constructor(file?: string) {
    this.#file = file;
  }

  now(): number {
    return Math.round(performance.now() - this.#begun);
  }

  add(line: LogLine): void {
    this.lines.push(line);
    if (this.#file !== undefined) appendFileSync(this.#file, `${JSON.stringify(line)}\n`);
  }
}
