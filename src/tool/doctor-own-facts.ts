/** Reads what `tartan doctor` judges of tartan itself: its processes, its directories, its files. */
import { X509Certificate } from 'node:crypto';
import { accessSync, constants, existsSync, readdirSync, readFileSync, statfsSync, statSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { lockName } from '../cli/lock.js';
import { findProcesses } from '../datapath/tun/find-process.js';
import type { CertificateFacts, OwnFacts, PlaceFacts, ProcessFacts } from '../doctor/facts.js';
import { errnoOf, messageOf } from '../lib/errors.js';
import { factValue, known, unknown, type Fact } from '../lib/fact.js';
import { readTextFile } from '../lib/file.js';
import type { DoctorRequest } from './ports.js';

/** Over which time it is seen how long threads wait for a processor. */
const sampleMs = 400;

export async function readOwnFacts(request: DoctorRequest): Promise<OwnFacts> {
  const { runDir, stateDir, subnetFile, status } = request;
  const daemon = trying(() => status?.daemon?.pid ?? holderOf(join(runDir, lockName)));
  const data = trying(() => status?.datapath?.pid ?? findProcesses(runDir)[0]);
  const [before, fromMs] = [waitedNs(factValue(data)), performance.now()];
  await delay(sampleMs);
  const part = starvedPart(before, waitedNs(factValue(data)), performance.now() - fromMs);
  return {
    daemon: processFact(daemon, unknown('not sampled')),
    dataProcess: processFact(data, part),
    places: [...new Set([stateDir, runDir, dirname(subnetFile)])].filter(existsSync).map(placeFacts),
    subnetFile: { path: subnetFile, text: readTextFile(subnetFile) },
    certificates: request.certificates.flatMap(certificateFacts),
    lastFailure: undefined,
    wallMs: Date.now(),
  };
}

function trying<T>(read: () => T): Fact<T> {
  try {
    return known(read());
  } catch (error) {
    return unknown(messageOf(error));
  }
}

/** @returns the process that holds flock(2) on the file (proc(5), /proc/locks); undefined: none does */
function holderOf(path: string): number | undefined {
  if (!existsSync(path)) return undefined;
  const { ino } = statSync(path);
  const lines = readFileSync('/proc/locks', 'latin1').split('\n');
  const [, pid] =
    lines.map(line => /FLOCK\s+\S+\s+\S+\s+(\d+)\s+\S+:(\d+)\s/.exec(line)).find(match => match?.[2] === String(ino)) ??
    [];
  return pid === undefined ? undefined : Number(pid);
}

function processFact(pid: Fact<number | undefined>, starved: Fact<number>): OwnFacts['daemon'] {
  if (!pid.known) return pid;
  const found = pid.value === undefined ? undefined : processFacts(pid.value, starved);
  return known(found);
}

function processFacts(pid: number, starved: Fact<number>): ProcessFacts | undefined {
  const stat = factValue(readTextFile(`/proc/${pid}/stat`));
  if (stat === undefined) return undefined;
  const state = stat.charAt(stat.lastIndexOf(')') + 2);
  if (state === 'Z' || state === 'X') return undefined;
  const limit = /^Max open files\s+(\d+)/m.exec(factValue(readTextFile(`/proc/${pid}/limits`)) ?? '')?.[1];
  return {
    pid,
    state,
    openFiles: trying(() => readdirSync(`/proc/${pid}/fd`).length),
    openFilesMax: limit === undefined ? unknown('its limits cannot be read') : known(Number(limit)),
    starved,
  };
}

/** How long each thread has waited for a processor since it began, in ns (proc(5), schedstat). */
function waitedNs(pid: number | undefined): ReadonlyMap<string, number> {
  const waited = new Map<string, number>();
  if (pid === undefined) return waited;
  try {
    for (const thread of readdirSync(`/proc/${pid}/task`)) {
      const [, wait] = (factValue(readTextFile(`/proc/${pid}/task/${thread}/schedstat`)) ?? '').split(' ');
      if (wait !== undefined) waited.set(thread, Number(wait));
    }
  } catch {
    // The process has just ended.
  }
  return waited;
}

function starvedPart(
  before: ReadonlyMap<string, number>,
  after: ReadonlyMap<string, number>,
  elapsedMs: number,
): Fact<number> {
  if (before.size === 0) return unknown('the kernel does not tell');
  const parts = [...after].map(([thread, ns]) => (ns - (before.get(thread) ?? ns)) / (elapsedMs * 1e6));
  return known(Math.min(1, Math.max(0, ...parts)));
}

function placeFacts(path: string): PlaceFacts {
  const space = trying(() => statfsSync(path));
  return {
    path,
    refusal: refusalOf(path),
    freeBytes: space.known ? known(space.value.bavail * space.value.bsize) : space,
    // Some file systems count no files.
    freeFiles: space.known ? known(space.value.files === 0 ? Infinity : space.value.ffree) : space,
  };
}

/** access(2) tells EROFS to root too. */
function refusalOf(path: string): string | undefined {
  try {
    accessSync(path, constants.W_OK);
    return undefined;
  } catch (error) {
    return errnoOf(error) ?? 'failed';
  }
}

const pem = /-----BEGIN CERTIFICATE-----[\s\S]+?-----END CERTIFICATE-----/g;

/** A bundle of many CAs is of the system: nobody renews it for us. */
const bundleFrom = 4;

function certificateFacts(path: string): readonly CertificateFacts[] {
  const text = readTextFile(path);
  if (!text.known || text.value === undefined) {
    const why = unknown(text.known ? 'there is no such file' : text.why);
    return [{ path, validFromMs: why, validToMs: why }];
  }
  const blocks = text.value.match(pem) ?? [];
  if (blocks.length >= bundleFrom) return [];
  return blocks.map(block => {
    const certificate = trying(() => new X509Certificate(block));
    if (!certificate.known) return { path, validFromMs: certificate, validToMs: certificate };
    const { validFrom, validTo } = certificate.value;
    return { path, validFromMs: known(Date.parse(validFrom)), validToMs: known(Date.parse(validTo)) };
  });
}
