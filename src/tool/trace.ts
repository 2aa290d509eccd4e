/** `tartan trace`: the way of a packet to an overlay address, and where it would be lost. Nothing is sent. */
import { apiVersion, type Status } from '../agent/status.js';
import { tunnelDevice } from '../backend/all.js';
import { formatIpv4, parseIpv4, readIpv4, shown, type Ipv4 } from '../model/ip.js';
import { kernelPort } from '../model/plan.js';
import { daemonStatus, print, type Call } from './commands.js';
import { exitStatus, usageError, type ExitStatus } from './error.js';
import type { WayRequest } from './trace-facts.js';
import { judgeWay, peerOf, type TraceStep } from './trace-judge.js';
import { formatTable, withoutControls, type Column, type Paint } from './table.js';

/** @param fromText an address of a container here, or of this host; undefined: this host, as the kernel chooses */
export async function traceWay(call: Call, toText: string, fromText: string | undefined): Promise<ExitStatus> {
  const to = readAddress('ADDRESS', toText);
  const from = fromText === undefined ? undefined : readAddress('--from', fromText);
  const status = await daemonStatus(call);
  const facts = await call.io.ports.readWay({ to, from, outer: outerOf(status, to) });
  const steps = judgeWay({ to, from, status, device: tunnelDevice }, facts);
  const lost = steps.find(({ state }) => state === 'lost');
  const document = {
    apiVersion,
    kind: 'Trace',
    from: from === undefined ? null : formatIpv4(from),
    to: formatIpv4(to),
    arrives: lost === undefined,
    lostAt: lost?.name ?? null,
    next: lost?.next ?? null,
    steps,
  };
  print(call, document, (_, paint) => `${formatTable(columns, steps, 'table', paint)}${conclusion(steps, to, paint)}`);
  return lost === undefined ? exitStatus.ok : exitStatus.checkFailed;
}

const columns: readonly Column<TraceStep>[] = [
  { title: 'STEP', cell: ({ name }) => name },
  {
    title: 'STATE',
    cell: ({ state }) => (state === 'unknown' ? state : { text: state, colour: state === 'lost' ? 'bad' : 'good' }),
  },
  { title: 'BY', cell: ({ text }) => text },
];

function conclusion(steps: readonly TraceStep[], to: Ipv4, paint: Paint): string {
  const lost = steps.find(({ state }) => state === 'lost');
  if (lost) {
    const head = paint(`lost at ${lost.name}: ${withoutControls(lost.text)}`, 'bad');
    return `\n${head}\nnext: ${withoutControls(lost.next ?? 'tartan doctor')}\n`;
  }
  const unknown = steps.filter(({ state }) => state === 'unknown').map(({ name }) => name);
  const doubt = unknown.length === 0 ? '' : `, as far as is known (not read: ${unknown.join(', ')})`;
  return `\n${paint(`arrives at ${formatIpv4(to)}${doubt}`, 'good')}\n`;
}

function outerOf(status: Status, to: Ipv4): WayRequest['outer'] {
  const { interface: link, backend } = status;
  const peer = peerOf(status, to);
  const [address, far] = [readIpv4(link?.address ?? ''), readIpv4(peer?.publicIp ?? '')];
  if (!link || !backend?.port || address === undefined || far === undefined) return undefined;
  const isKernel = peer?.watched?.engine === 'kernel';
  const outer = { device: link.name, address, peer: far };
  return isKernel ? { ...outer, port: kernelPort, isKernel } : { ...outer, port: backend.port };
}

function readAddress(name: string, text: string): Ipv4 {
  try {
    return parseIpv4(text);
  } catch {
    throw usageError(`${name} '${shown(text)}' is not an IPv4 address, expected one such as 10.5.2.7`);
  }
}
