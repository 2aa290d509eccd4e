/**
 * Sends ICMP echo requests between overlay addresses. The request and its reply cross the tunnel both ways, so a reply
 * proves the whole path. The package raw-socket carries them where it was built, else the addon's own socket.
 */
import { setTimeout as delay } from 'node:timers/promises';
import {
  describeIcmpError,
  formatEcho,
  openIcmp,
  pathMtuTo,
  readIcmp,
  type EchoRequest,
  type IcmpNews,
} from '../host/icmp.js';
import { errnoOf, messageOf } from '../lib/errors.js';
import { formatIpv4, type Ipv4 } from '../model/ip.js';
import { exitStatus, ToolError } from './error.js';

export interface EchoQuestion {
  readonly timeoutMs: number;
  /** Bytes behind the ICMP header. */
  readonly payloadBytes: number;
  readonly df: boolean;
}

/** A round trip in milliseconds, or why there is none: 'no answer', an ICMP error or that of the send. */
export type EchoAnswer = { readonly rttMs: number } | { readonly reason: string };

export interface Echo {
  /** Sends one request. */
  ping(address: Ipv4, question: EchoQuestion): Promise<EchoAnswer>;
  close(): void;
}

interface EchoSocket {
  readonly identifier: number;
  /** @param onError an errno error in Node's shape, at once or later */
  send(to: Ipv4, request: EchoRequest, onError: (error: unknown) => void): void;
  close(): void;
}

/** @throws ToolError that names the true cause */
export async function openEcho(): Promise<Echo> {
  const waiting = new Map<number, (heard: IcmpNews) => void>();
  let sequence = 0;
  const socket = await openEither(news => {
    const echo = news.kind === 'reply' ? news : news.quoted.echo;
    if (echo?.identifier === socket.identifier) waiting.get(echo.sequence)?.(news);
  });
  return {
    async ping(address, { timeoutMs, payloadBytes, df }) {
      const number = (sequence = (sequence + 1) & 0xffff);
      const stop = new AbortController();
      const sentAt = performance.now();
      const answer = new Promise<EchoAnswer>(resolve => {
        waiting.set(number, news => resolve(answerOf(news, address, sentAt)));
        const request = { sequence: number, payloadBytes, df };
        socket.send(address, request, error => resolve({ reason: describeSendError(error, address) }));
      });
      const silence = delay(timeoutMs, { reason: 'no answer' }, { signal: stop.signal }).catch(() => ({
        reason: 'no answer',
      }));
      const result = await Promise.race([answer, silence]);
      stop.abort();
      waiting.delete(number);
      return result;
    },
    close: () => socket.close(),
  };
}

function answerOf(news: IcmpNews, asked: Ipv4, sentAt: number): EchoAnswer {
  if (news.kind === 'reply') return { rttMs: performance.now() - sentAt };
  const where = news.from === asked ? '' : ` (from ${formatIpv4(news.from)})`;
  return { reason: `${describeIcmpError(news)}${where}` };
}

function describeSendError(error: unknown, to: Ipv4): string {
  // raw-socket gives the kernel's words alone.
  switch (errnoOf(error) ?? (messageOf(error) === 'Message too long' ? 'EMSGSIZE' : undefined)) {
    case 'EMSGSIZE':
      return `longer than the MTU of this host's route to it${pathMtuText(to)}, and may not be cut`;
    case 'EPERM':
      return 'a packet filter of this host forbids to send it';
    case 'EHOSTUNREACH':
    case 'ENETUNREACH':
      return 'this host has no route to it';
    default:
      return messageOf(error);
  }
}

function pathMtuText(to: Ipv4): string {
  const mtu = pathMtuTo(to);
  return mtu === undefined ? '' : `, ${mtu}`;
}

/** raw-socket comes first, as the package that was named for it. */
async function openEither(onNews: (news: IcmpNews) => void): Promise<EchoSocket> {
  const refusals: unknown[] = [];
  for (const open of [openRawSocket, openOwnSocket]) {
    try {
      return await open(onNews);
    } catch (error) {
      refusals.push(error);
    }
  }
  throw refusalError(refusals);
}

/** The addon's refusal is the one to tell: raw-socket is optional. */
function refusalError([byPackage, addon]: readonly unknown[]): ToolError {
  const code = errnoOf(addon);
  const fail = (message: string, next: string): ToolError =>
    new ToolError(exitStatus.error, message, next, { cause: addon });
  if (code === 'EPERM' || code === 'EACCES')
    return fail(
      'this user may open no ICMP socket',
      'run it as root, or allow groups to ping: sysctl -w net.ipv4.ping_group_range="0 2147483647"',
    );
  if (code === 'ERR_DLOPEN_FAILED' || code === 'MODULE_NOT_FOUND')
    return fail(
      `the addon of tartan does not load (${firstLine(addon)}), nor does the package raw-socket (${firstLine(byPackage)})`,
      'build the addon: npm run build',
    );
  return fail(`no ICMP socket can be opened: ${messageOf(addon)}`, 'see whether something confines this program');
}

function firstLine(error: unknown): string {
  return messageOf(error).split('\n')[0] ?? '';
}

async function openOwnSocket(onNews: (news: IcmpNews) => void): Promise<EchoSocket> {
  const socket = openIcmp(onNews);
  return {
    identifier: socket.identifier,
    send(to, request, onError) {
      try {
        socket.sendEcho(to, request);
      } catch (error) {
        onError(error);
      }
    },
    close: () => socket.close(),
  };
}

/** linux/in.h: what DF is set by. */
const mtuDiscover = { level: 0, option: 10, never: 0, always: 3 } as const;

async function openRawSocket(onNews: (news: IcmpNews) => void): Promise<EchoSocket> {
  const { default: raw } = await import('raw-socket');
  const socket = raw.createSocket({ protocol: raw.Protocol.ICMP });
  const identifier = process.pid & 0xffff || 1;
  socket.on('message', (packet: Buffer) => {
    const news = readIcmp(packet);
    if (news) onNews(news);
  });
  socket.on('error', () => {});
  return {
    identifier,
    send(to, { sequence, payloadBytes, df }, onError) {
      socket.setOption(mtuDiscover.level, mtuDiscover.option, df ? mtuDiscover.always : mtuDiscover.never);
      const request = formatEcho(identifier, sequence, payloadBytes);
      socket.send(request, 0, request.length, formatIpv4(to), error => error && onError(error));
    },
    close: () => void socket.close(),
  };
}
