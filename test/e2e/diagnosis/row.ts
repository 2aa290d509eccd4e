/**
 * One fault that people call about: it is injected, `tartan status` and `tartan doctor` are looked at, it is healed, and
 * doctor finds nothing again. The rows print the table of what was seen, by whom and when.
 */
import { expect } from 'vitest';
import type { Status } from '../../../src/agent/status.js';
import { lookAt, namesOf } from '../../support/doctor.js';
import type { Lab } from '../../support/lab.js';
import { until } from '../../support/tools.js';

export type Heal = () => Promise<unknown>;

export interface DiagnosisRow {
  readonly id: string;
  readonly what: string;
  /** The host that is asked. */
  readonly on: string;
  readonly inject: (lab: Lab) => Promise<Heal>;
  /** Traffic from a to this host until doctor finds nothing again: nobody asks for the path of an idle pair. */
  readonly trafficTo?: string;
  /** Words in the first lines of `tartan status`; undefined: the status is not where this shows. */
  readonly status?: RegExp;
  /** What comes before the command of doctor, to change its view of the host. */
  readonly view?: (lab: Lab) => readonly string[];
  /** How long the status may take, and the end of it. */
  readonly statusLimitMs?: number;
  readonly healLimitMs?: number;
  /** The finding, and words of its evidence, cause and next step. */
  readonly doctor: readonly [id: string, words: RegExp];
  /** Words of `tartan peers`. */
  readonly peers?: RegExp;
  /** A part of `npm test` too. */
  readonly isQuick?: boolean;
  /** Findings that stay after the fault, because they tell of the past. */
  readonly left?: readonly string[];
}

const statusLimitMs = 15_000;
const healLimitMs = 40_000;
/** The lines of an answer that an operator reads first. */
const firstLines = 14;

const table: string[] = [];

export async function diagnoseRow(lab: Lab, row: DiagnosisRow): Promise<void> {
  const flow = row.trafficTo && (await lab.flow(lab.node('a'), lab.node(row.trafficTo), 50));
  try {
    await diagnose(lab, row);
  } finally {
    if (flow) await flow.stop();
  }
}

async function diagnose(lab: Lab, row: DiagnosisRow): Promise<void> {
  const host = lab.node(row.on);
  const heal = await row.inject(lab);
  try {
    const fromMs = performance.now();
    let seen = '-';
    if (row.status) {
      const words = row.status;
      await until(
        `${row.id} in the status: ${words}`,
        async () => words.test(textOf(await host.status())),
        row.statusLimitMs ?? statusLimitMs,
      );
      seen = secondsSince(fromMs);
      // A daemon that starts goes on meanwhile.
      const head = async (): Promise<string> => headOf((await host.tool('status')).stdout);
      await until(`${row.id} in the first lines: ${words}`, async () => words.test(await head()), statusLimitMs);
    }
    const found = await until(`${row.id} by doctor`, () => foundBy(row, lab), 25_000);
    if (row.peers) expect((await host.tool('peers')).stdout).toMatch(row.peers);
    table.push(`| ${row.id} | ${row.what} | ${seen} | \`${row.doctor[0]}\` | ${row.peers ? 'yes' : '-'} | ${found} |`);
    process.stdout.write(`${table.at(-1) ?? ''}\n`);
  } finally {
    await heal();
  }
  const left = ['docker-stopped', ...(row.left ?? [])];
  const end = async (): Promise<boolean> => {
    const report = await lookAt(host);
    lastSeen = JSON.stringify(report.findings);
    return namesOf(report).every(name => left.includes(name));
  };
  const healedMs = performance.now();
  await until(`doctor finds nothing after ${row.id}`, end, row.healLimitMs ?? healLimitMs);
  process.stdout.write(`${row.id}: doctor finds nothing ${secondsSince(healedMs)} after healing\n`);
}

/** What doctor says of the fault in its first lines; undefined while it says nothing of it. */
async function foundBy(row: DiagnosisRow, lab: Lab): Promise<string | undefined> {
  const host = lab.node(row.on);
  const [id, words] = row.doctor;
  const report = await lookAt(host, row.view?.(lab));
  const found = report.findings.find(one => one.id === id && words.test(`${one.evidence} ${one.cause} ${one.next}`));
  if (!found) {
    lastSeen = JSON.stringify(report.findings);
    return undefined;
  }
  const before = report.findings.indexOf(found);
  // It stands in the first lines where it is no mere note.
  if (found.severity === 'error' || found.severity === 'warning') expect(before, lastSeen).toBeLessThan(4);
  return `${found.evidence}. ${found.cause}. Next: ${found.next}`.replaceAll('|', '\\|');
}

export let lastSeen = '';

function textOf({ problems, summary, peers, datapath }: Status): string {
  const reasons = peers.flatMap(({ watched }) => watched?.reason ?? []);
  return [summary, ...problems, ...reasons, ...(datapath?.warnings ?? [])].join('\n');
}

function secondsSince(fromMs: number): string {
  return `${((performance.now() - fromMs) / 1000).toFixed(1)} s`;
}

function headOf(text: string): string {
  return text.split('\n').slice(0, firstLines).join('\n');
}
