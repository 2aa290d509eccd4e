/** Runs `tartan doctor`: gathers the facts side by side, judges them, and puts right what is ours where asked. */
import { setTimeout as delay } from 'node:timers/promises';
import { version } from '../cli/version.js';
import type { DoctorFacts } from '../doctor/facts.js';
import { judgeAll, type DoctorReport } from '../doctor/judge.js';
import { known, unknown, type Fact } from '../lib/fact.js';
import type { Status } from '../agent/status.js';
import { print, type Call } from './commands.js';
import { dockerSocket, readPlan } from './docker-commands.js';
import { factLimitMs, inTime } from './doctor-facts.js';
import { formatDoctor } from './doctor-view.js';
import { exitStatus, type ExitStatus } from './error.js';

/** @param fix put right what is ours, then look again */
export async function examine(call: Call, fix: boolean): Promise<ExitStatus> {
  const fixed = fix ? await call.io.ports.doctor.fix(await gather(call)) : [];
  const report = await diagnose(call, fixed);
  print(call, report, (output, paint) => formatDoctor(report, output, paint));
  return report.ok ? exitStatus.ok : exitStatus.checkFailed;
}

/** A report of now, for other commands too. @param fixed what was put right before, one line each */
export async function diagnose(call: Call, fixed: readonly string[] = []): Promise<DoctorReport> {
  return judgeAll(await gather(call), version, fixed);
}

/** Counters are read twice with so much time between. */
const betweenMs = 500;

async function gather(call: Call): Promise<DoctorFacts> {
  const { settings, io } = call;
  const fromMs = performance.now();
  const [reading, certificates] = await Promise.all([readStatus(call), certificatesOf(call)]);
  const status = reading.known ? reading.value : undefined;
  const [rest, docker, later, lastFailure] = await Promise.all([
    io.ports.doctor.readFacts({
      runDir: settings.runDir,
      stateDir: status?.daemon?.stateDir ?? settings.stateDir,
      subnetFile: status?.daemon?.subnetFile ?? settings.subnetFile,
      status,
      certificates,
    }),
    inTime('the facts about Docker', readDocker(call)),
    readLater(call, reading, fromMs),
    status ? undefined : readLastFailure(call),
  ]);
  return { status: reading, later, docker, ...rest, own: { ...rest.own, lastFailure } };
}

/** Events by which a daemon says why it ends. */
const endings = ['daemon.failed', 'daemon.refused'];

/** @returns with what the last daemon ended, as its events on disk tell; undefined: it did not fail, or it is not known */
async function readLastFailure({ io, settings }: Call): Promise<string | undefined> {
  const reading = await io.ports.readEvents(settings.runDir, settings.stateDir, 0);
  const events = reading.kind === 'events' ? reading.list.events : [];
  const began = events.findLastIndex(({ event }) => event === 'daemon.starting');
  return events.slice(began + 1).find(({ event }) => endings.includes(event))?.message;
}

async function readStatus({ io, settings }: Call): Promise<Fact<Status>> {
  const reading = await io.ports.readStatus(settings.runDir);
  return reading.kind === 'status' ? known(reading.status) : unknown(reading.reason);
}

async function readLater(call: Call, first: Fact<Status>, fromMs: number): Promise<Fact<Status>> {
  // A daemon that was away a moment ago is not waited for again.
  if (!first.known) return first;
  await delay(Math.max(0, fromMs + betweenMs - performance.now()));
  return readStatus(call);
}

async function readDocker(call: Call) {
  const { plan, status } = await readPlan(call);
  const { socketPath } = dockerSocket(call);
  const facts = await call.io.ports.docker.readFacts({
    socketPath,
    daemonJson: undefined,
    envFile: plan.envFile,
    underlay: status?.interface?.name,
    limitMs: factLimitMs - 200,
  });
  return { plan, facts };
}

/** Options for etcd that cannot be used are an error of other commands. */
async function certificatesOf({ settings }: Call): Promise<readonly string[]> {
  try {
    const { certFile, caFile } = (await settings.etcd()).options;
    return [certFile, caFile].filter(path => path !== undefined);
  } catch {
    return [];
  }
}
