/**
 * Chooses routes before they are parsed: of a hundred thousand routes of others only those that touch the ranges of a
 * plan matter. It reads the raw messages of rtnetlink(7) at fixed places, because to parse each of them is too slow.
 */
import { endianness } from 'node:os';
import { addressBytes, unspecifiedIpv4, type Prefix } from '../../model/ip.js';
import { afInet, messageTypes } from './messages.js';

/** Decides by a whole message, with its header. */
export type MessageFilter = (message: Buffer) => boolean;

const isLittle = endianness() === 'LE';
/** The header of each message, and a flag in it: linux/netlink.h. */
export const headerBytes = 16;
export const dumpInterrupted = 0x10;
const routeHeaderBytes = 12;
const attributeDestination = 1;

/** Keeps all that is no IPv4 route, our own routes, and routes that overlap one of the ranges. */
export function routesTouching(ranges: readonly Prefix[], protocols: readonly number[]): MessageFilter {
  const wanted = ranges.map(({ base, length }) => ({ bytes: addressBytes(base), length }));
  const none = addressBytes(unspecifiedIpv4);
  return message => {
    if (message.length < headerBytes) return true;
    const type = u16(message, 4);
    if (type !== messageTypes.newRoute && type !== messageTypes.deleteRoute) return true;
    if (wasInterrupted(message)) return true;
    if (message.length < headerBytes + routeHeaderBytes || message[headerBytes] !== afInet) return false;
    if (protocols.includes(message[headerBytes + 5] ?? 0)) return true;
    const length = message[headerBytes + 1] ?? 0;
    const destination = length === 0 ? none : findAttribute(message, attributeDestination);
    return destination === undefined || wanted.some(range => overlaps(range.bytes, range.length, destination, length));
  };
}

/** Of routes, keeps those to everything. */
export const isDefaultRoute: MessageFilter = message =>
  message.length < headerBytes ||
  u16(message, 4) !== messageTypes.newRoute ||
  message[headerBytes + 1] === 0 ||
  wasInterrupted(message);

function wasInterrupted(message: Buffer): boolean {
  return (u16(message, 6) & dumpInterrupted) !== 0;
}

/** @returns the messages of a datagram that the filter keeps, as one datagram */
export function keepMessages(datagram: Buffer, keeps: MessageFilter): Buffer {
  const kept: Buffer[] = [];
  for (const message of split(datagram)) if (keeps(message)) kept.push(message);
  return Buffer.concat(kept);
}

/** Whether the filter keeps any message of a datagram. A malformed datagram counts as kept. */
export function keepsAny(datagram: Buffer, keeps: MessageFilter): boolean {
  for (const message of split(datagram)) if (keeps(message)) return true;
  return false;
}

/** Yields each message with its padding; the rest of a malformed datagram is one message. */
function* split(datagram: Buffer): Generator<Buffer> {
  for (let at = 0; at < datagram.length;) {
    const length = at + headerBytes <= datagram.length ? u32(datagram, at) : 0;
    const end = length < headerBytes ? datagram.length : Math.min(datagram.length, at + ((length + 3) & ~3));
    yield datagram.subarray(at, end);
    at = end;
  }
}

/** @returns the first four bytes of the attribute, which an IPv4 address fills */
function findAttribute(message: Buffer, type: number): Buffer | undefined {
  for (let at = headerBytes + routeHeaderBytes; at + 4 <= message.length;) {
    const length = u16(message, at);
    if (length < 4) return undefined;
    if (u16(message, at + 2) === type) return message.subarray(at + 4, at + 8);
    at += (length + 3) & ~3;
  }
  return undefined;
}

/** Whether two prefixes are equal in as many bits as the shorter one has. */
function overlaps(a: Uint8Array, aLength: number, b: Uint8Array, bLength: number): boolean {
  let bits = Math.min(aLength, bLength);
  for (let at = 0; bits > 0; at++, bits -= 8) {
    const mask = bits >= 8 ? 0xff : 0xff & (0xff << (8 - bits));
    if ((((a[at] ?? 0) ^ (b[at] ?? 0)) & mask) !== 0) return false;
  }
  return true;
}

function u16(bytes: Buffer, at: number): number {
  return isLittle ? bytes.readUInt16LE(at) : bytes.readUInt16BE(at);
}

function u32(bytes: Buffer, at: number): number {
  return isLittle ? bytes.readUInt32LE(at) : bytes.readUInt32BE(at);
}
