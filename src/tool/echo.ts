/**
 * Sends ICMP echo requests (RFC 792) between overlay addresses through the optional raw-socket package. The request and
 * its reply cross the tunnel both ways, so a reply proves the whole path. The other commands work on a host where the
 * package did not build.
 */
import { setTimeout as delay } from 'node:timers/promises';
import { messageOf, TartanError } from '../lib/errors.js';
import { formatIpv4, type Ipv4 } from '../model/ip.js';

export interface Echo {
  /**
   * Sends one request.
   * @returns the round trip in milliseconds, or why there is none: 'no answer' or the error of the send
   */
  ping(address: Ipv4, timeoutMs: number): Promise<number | string>;
  close(): void;
}

const echoReply = 0;
const echoRequest = 8;
const payloadBytes = 48;

/** @throws TartanError PERMISSION without CAP_NET_RAW or without the package */
export async function openEcho(): Promise<Echo> {
  const { default: raw } = await import('raw-socket').catch((cause: unknown) => {
    throw new TartanError(
      'PERMISSION',
      'the optional package raw-socket is not installed: run npm rebuild raw-socket',
      { cause },
    );
  });
  const socket = openSocket(() => raw.createSocket({ protocol: raw.Protocol.ICMP }));
  const identifier = process.pid & 0xffff;
  const waiting = new Map<number, (rttMs: number | string) => void>();
  let sequence = 0;
  socket.on('message', (packet: Buffer) => {
    const icmp = packet.subarray(((packet[0] ?? 0) & 15) * 4);
    if (icmp.length < 8 || icmp[0] !== echoReply || icmp.readUInt16BE(4) !== identifier) return;
    waiting.get(icmp.readUInt16BE(6))?.(performance.now());
  });
  socket.on('error', () => {});
  return {
    async ping(address, timeoutMs) {
      const number = (sequence = (sequence + 1) & 0xffff);
      const request = Buffer.alloc(8 + payloadBytes, 0x74);
      request.fill(0, 0, 8).writeUInt8(echoRequest, 0);
      request.writeUInt16BE(identifier, 4);
      request.writeUInt16BE(number, 6);
      request.writeUInt16BE(raw.createChecksum(request), 2);
      const sentAt = performance.now();
      const answer = new Promise<number | string>(resolve => {
        waiting.set(number, resolve);
        socket.send(request, 0, request.length, formatIpv4(address), error => {
          if (error) resolve(messageOf(error));
        });
      });
      const stop = new AbortController();
      const result = await Promise.race([
        answer,
        delay(timeoutMs, 'no answer', { signal: stop.signal }).catch(() => 'no answer'),
      ]);
      stop.abort();
      waiting.delete(number);
      return typeof result === 'number' ? result - sentAt : result;
    },
    close: () => void socket.close(),
  };
}

function openSocket<T>(open: () => T): T {
  try {
    return open();
  } catch (cause) {
    throw new TartanError('PERMISSION', `cannot open an ICMP socket (${messageOf(cause)}): start the tool as root`, {
      cause,
    });
  }
}
