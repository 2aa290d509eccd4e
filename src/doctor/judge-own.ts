/** Judges tartand itself: whether it runs and answers, its directories, its file for Docker's scripts, its clock. */
import { parseSubnetEnv } from '../docker/settings/settings.js';
import type { Finding } from '../docker/verify/finding.js';
import { factValue } from '../lib/fact.js';
import { formatPrefix } from '../model/ip.js';
import type { Status } from '../agent/status.js';
import { check, diagnosis, uncheckedIf, type Check } from './check.js';
import type { DoctorFacts, OwnFacts, PlaceFacts, ProcessFacts } from './facts.js';

export function judgeOwn(facts: DoctorFacts, toolVersion: string): readonly Check[] {
  const { own } = facts;
  const status = factValue(facts.status);
  return [
    check('Host', `tartand ${status?.version ?? ''} answers`, judgeDaemon(facts, toolVersion)),
    check('Host', 'tartand has descriptors left', judgeOpenFiles(own)),
    check('Host', `${own.places.map(({ path }) => path).join(' and ')} can be written`, own.places.flatMap(judgePlace)),
    check('Host', `${own.subnetFile.path} is that of the lease`, judgeSubnetFile(own, status)),
    check('Host', 'the clock was not set', judgeClock(status)),
  ];
}

function judgeDaemon(facts: DoctorFacts, toolVersion: string): readonly Finding[] {
  const { status, own } = facts;
  if (!status.known)
    return [
      diagnosis('error', 'daemon-away', {
        found: `tartand cannot be asked: ${status.why}`,
        expected: 'a tartand that answers',
        ...whyAway(own),
      }),
    ];
  const { phase, ready, placedProblems, version } = status.value;
  const waits = !ready && placedProblems.length === 0;
  return [
    ...(waits
      ? [
          diagnosis('error', 'daemon-not-ready', {
            found: `tartand is in the phase ${phase}`,
            cause: 'it has just begun, or waits for what it does not name',
            expected: 'the phase ready within seconds',
            repair: 'journalctl -u tartand -n 50',
          }),
        ]
      : []),
    ...(version === toolVersion
      ? []
      : [
          diagnosis('note', 'daemon-version', {
            found: `tartand is ${version}, this tool is ${toolVersion}`,
            cause: 'one of them was installed anew, and tartand was not started again',
            expected: 'one version',
            repair: 'systemctl restart tartand',
          }),
        ]),
  ];
}

/** Names why nobody answers, by what is known of the process that holds the run directory. */
function whyAway({ daemon, lastFailure }: OwnFacts): { readonly cause: string; readonly repair: string } {
  if (!daemon.known) return { cause: `the process is not known: ${daemon.why}`, repair: 'sudo tartan doctor' };
  const found = daemon.value;
  if (!found && lastFailure !== undefined)
    return {
      cause: `no tartand runs here; the last one ended with: ${lastFailure}`,
      repair: 'do what it says, then systemctl restart tartand',
    };
  if (!found)
    return { cause: 'no tartand runs here', repair: 'systemctl restart tartand && journalctl -u tartand -n 30' };
  const { pid, state } = found;
  if (state === 'T' || state === 't')
    return { cause: `process ${pid} is stopped by a signal or a debugger`, repair: `kill -CONT ${pid}` };
  if (state === 'D')
    return { cause: `process ${pid} waits for the kernel and cannot be interrupted`, repair: `cat /proc/${pid}/stack` };
  const [open, max] = [factValue(found.openFiles), factValue(found.openFilesMax)];
  if (open !== undefined && max !== undefined && open >= max)
    return { cause: `process ${pid} has used up its ${max} descriptors`, repair: 'systemctl restart tartand' };
  return {
    cause: `process ${pid} runs and does not answer: it is starting, starved of processor, or this user may not ask it`,
    repair: 'sudo tartan doctor, then journalctl -u tartand -n 30',
  };
}

/** Part of the limit from which descriptors are nearly used up. */
const manyFiles = 0.9;

function judgeOpenFiles({ daemon }: OwnFacts): readonly Finding[] {
  const found: ProcessFacts | undefined = factValue(daemon);
  if (!found) return [];
  const [open, max] = [factValue(found.openFiles), factValue(found.openFilesMax)];
  if (open === undefined || max === undefined || open < max * manyFiles) return [];
  return [
    diagnosis('error', 'descriptors-used-up', {
      found: `tartand has ${open} of ${max} descriptors open`,
      cause: 'the limit is too low for this host, or connections are left open',
      expected: `fewer than ${Math.floor(max * manyFiles)}`,
      repair: 'set LimitNOFILE=65536 in systemctl edit tartand, then systemctl restart tartand',
    }),
  ];
}

const littleBytes = 8 * 1024 * 1024;

function judgePlace(place: PlaceFacts): readonly Finding[] {
  const { path, refusal } = place;
  const [bytes, files] = [factValue(place.freeBytes), factValue(place.freeFiles)];
  if (refusal === 'EROFS')
    return [
      diagnosis('error', 'directory-read-only', {
        found: `${path} is on a file system that is mounted read-only`,
        cause: 'the kernel mounts it so after an error of the disk, or fstab does',
        expected: 'to be writable: what a restart needs without etcd is saved there',
        repair: `dmesg | tail -n 50, then mount -o remount,rw "$(findmnt -no TARGET -T ${path})"`,
      }),
    ];
  if (refusal === 'EACCES' || refusal === 'EPERM')
    return uncheckedIf('directory', path, { known: false, why: refusal });
  if (refusal !== undefined)
    return [
      diagnosis('error', 'directory-gone', {
        found: `${path} cannot be written (${refusal})`,
        cause: 'somebody removed or replaced it',
        expected: 'a directory of root',
        repair: 'systemctl restart tartand',
      }),
    ];
  if ((bytes ?? Infinity) > littleBytes && (files ?? Infinity) > 16) return [];
  const isFull = bytes === 0 || files === 0;
  return [
    diagnosis(isFull ? 'error' : 'warning', 'disk-full', {
      found: `${path} has ${bytes ?? '?'} bytes and ${files ?? '?'} files left`,
      cause: 'its file system is full',
      expected: `${littleBytes} bytes: what a restart needs without etcd is saved there`,
      repair: `du -xh "$(findmnt -no TARGET -T ${path})" | sort -h | tail, and remove what is not needed`,
    }),
  ];
}

function judgeSubnetFile({ subnetFile: { path, text } }: OwnFacts, status: Status | undefined): readonly Finding[] {
  if (!status?.ready || !status.lease) return [];
  if (!text.known) return uncheckedIf('subnet-file', path, text);
  const found = text.value === undefined ? undefined : parseSubnetEnv(text.value);
  if (found && formatPrefix(found) === status.lease.subnet) return [];
  return [
    diagnosis('error', 'subnet-file', {
      found: found
        ? `${path} names ${formatPrefix(found)}, the lease is ${status.lease.subnet}`
        : `${path} names no subnet`,
      cause: 'another program writes it, or it cannot be written',
      expected: status.lease.subnet,
      repair: 'systemctl restart tartand',
    }),
  ];
}

const setSeconds = 30;

function judgeClock(status: Status | undefined): readonly Finding[] {
  const seconds = status?.daemon?.clockSetSeconds ?? 0;
  if (Math.abs(seconds) < setSeconds) return [];
  return [
    diagnosis('note', 'clock-set', {
      found: `the clock was set ${seconds < 0 ? 'back' : 'forward'} by ${Math.abs(seconds)} s since tartand began`,
      cause: 'an operator, a first answer of a time server, or a restored virtual machine',
      expected: 'leases do not depend on it; certificates do',
      repair: 'timedatectl',
    }),
  ];
}
