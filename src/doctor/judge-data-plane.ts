/** Judges the data process: whether it runs, by which table, what the kernel or it drops now, and what it lacks. */
import type { Status } from '../agent/status.js';
import type { Finding } from '../docker/verify/finding.js';
import { factValue } from '../lib/fact.js';
import { check, diagnosis, type Check } from './check.js';
import type { DoctorFacts, OwnFacts } from './facts.js';
import { problemsAt } from './judge-problems.js';

export function judgeDataPlane({ status: fact, later, own }: DoctorFacts): readonly Check[] {
  const status = factValue(fact);
  if (!status) return [check('Data plane', 'the data process goes on alone', judgeAlone(own))];
  const { datapath } = status;
  if (!datapath) return [check('Data plane', 'the kernel carries the packets', problemsAt(status, ['data-plane']))];
  const after = factValue(later);
  return [
    check('Data plane', `process ${datapath.pid ?? '-'} carries packets`, [
      ...problemsAt(status, ['data-plane']),
      ...judgeTable(status, after),
      ...judgeRespawns(status),
    ]),
    check('Data plane', 'no packets are dropped for want of room', judgeDrops(status, after, own)),
    check('Data plane', 'the kernel gave what was asked for', judgeWarnings(status)),
    check('Data plane', 'the data process gets its processor', judgeStarved(own)),
  ];
}

function judgeAlone({ dataProcess }: OwnFacts): readonly Finding[] {
  if (!dataProcess.known || dataProcess.value) return [];
  return [
    diagnosis('error', 'data-process-away', {
      found: 'no data process runs: packets of the overlay are not carried',
      cause: 'tartand does not run, and nothing else starts it',
      expected: 'a data process, also without tartand',
      repair: 'systemctl restart tartand',
    }),
  ];
}

function judgeTable({ datapath, placedProblems }: Status, after: Status | undefined): readonly Finding[] {
  const late = after?.datapath;
  const told = placedProblems.some(({ place }) => place === 'data-plane');
  if (told || !datapath || !late || late.pid === null) return [];
  // The same lag twice: a table that was just published is adopted within milliseconds.
  const isBehind = late.generationAdopted < datapath.generationPublished;
  if (!isBehind || late.generationAdopted !== datapath.generationAdopted) return [];
  return [
    diagnosis('error', 'table-behind', {
      found: `the data process goes by table ${late.generationAdopted}, the newest is ${late.generationPublished}`,
      cause: 'it hangs or is starved of processor',
      expected: 'the newest table within a second',
      repair: `cat /proc/${late.pid}/stat, then systemctl restart tartand`,
    }),
  ];
}

function judgeRespawns({ datapath }: Status): readonly Finding[] {
  if (!datapath || datapath.respawns === 0) return [];
  return [
    diagnosis('note', 'respawned', {
      found: `the data process was started again ${datapath.respawns} times since tartand began`,
      cause: 'it ended by itself, was killed, or hung',
      expected: 'none',
      repair: 'journalctl -u tartand | grep datapath',
    }),
  ];
}

/** Counters of packets that came and found no room, and what they are called. */
const roomCounters = [
  ['rx_dropped', 'receive-drops', 'datagrams of peers'],
  ['tx_dropped', 'send-drops', 'packets to peers'],
] as const;

/** From this part of its time on a thread is starved. */
const starvedPart = 0.5;

function judgeDrops(before: Status, after: Status | undefined, { dataProcess }: OwnFacts): readonly Finding[] {
  const starved = starvedOf(dataProcess) >= starvedPart;
  return roomCounters.flatMap(([counter, id, what]) => {
    const count = (of: Status | undefined): number => of?.datapath?.counters[counter] ?? 0;
    const grown = after ? count(after) - count(before) : 0;
    if (grown <= 0) return [];
    return [
      diagnosis('warning', id, {
        found: `the kernel drops ${what} now: ${grown} during this check, ${count(after)} since tartand began (${counter})`,
        cause: starved
          ? `the data process waits for a processor ${percentOf(dataProcess)} of its time`
          : 'more comes than the data process takes: its buffers or its processors are too few',
        expected: 'no drops',
        repair: starved ? 'top -H: give the host more processors, or limit what uses them' : 'tartan top',
      }),
    ];
  });
}

type WarningKind = NonNullable<NonNullable<Status['datapath']>['warningKinds']>[number];

const warningWords: Readonly<
  Record<WarningKind, readonly [id: string, cause: string, expected: string, repair: string]>
> = {
  kernel: [
    'kernel-gives-less',
    'the kernel, its settings, or the container that tartand runs in',
    'all that the data plane can use; packets pass without it, only slower or less sure',
    'do what it says; else run tartand with CAP_NET_ADMIN and CAP_BPF, outside of an unprivileged container',
  ],
  account: [
    'account',
    'no user of its own for the data process',
    'an account tartan-datapath',
    'systemd-sysusers config/sysusers.d/tartan.conf, then systemctl restart tartand',
  ],
  room: [
    'no-room',
    'memory, or the numbers of peers, are used up',
    'room for every peer',
    'free -m, then systemctl restart tartand',
  ],
  spoofed: [
    'spoofed-packets',
    'containers or clients that send by an address outside of the subnet of this host, or of theirs',
    'a source in the subnet of the host that sends',
    'masquerade them on the host that they come by',
  ],
  stranger: [
    'stranger',
    'a host whose address is translated on the way, whose lease names another one, or that has no lease',
    'packets from addresses that leases name',
    'start tartand on that host with --public-ip, the address that others see',
  ],
  build: [
    'data-process-build',
    'tartan was installed anew, and the next data process could not take over',
    'a data process of the build of tartand',
    'systemctl restart tartand',
  ],
};

function judgeWarnings({ datapath }: Status): readonly Finding[] {
  return (datapath?.warnings ?? []).map((found, at) => {
    // A daemon that tells no kinds tells most of the kernel.
    const [id, cause, expected, repair] = warningWords[datapath?.warningKinds?.[at] ?? 'kernel'];
    return diagnosis('warning', id, { found, cause, expected, repair });
  });
}

function judgeStarved({ dataProcess }: OwnFacts): readonly Finding[] {
  if (starvedOf(dataProcess) < starvedPart) return [];
  return [
    diagnosis('note', 'starved', {
      found: `the data process waited for a processor ${percentOf(dataProcess)} of the time of this check`,
      cause: 'other programs, or other virtual machines on the same hardware, use the processors',
      expected: `less than ${starvedPart * 100} %`,
      repair: 'top -H: give the host more processors, or limit what uses them',
    }),
  ];
}

function starvedOf(process: OwnFacts['dataProcess']): number {
  const found = factValue(process);
  return (found && factValue(found.starved)) ?? 0;
}

function percentOf(process: OwnFacts['dataProcess']): string {
  return `${Math.round(starvedOf(process) * 100)} %`;
}
