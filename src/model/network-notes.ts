/** Remarks on a network document that is taken as it is: misspelt members, members without effect, what flannel refuses. */
import { isIPv6 } from 'node:net';
import { nearestWord } from '../lib/nearest-word.js';
import { readIpv4, shown } from './ip.js';
import { jsonMembers, outerMembers } from './json.js';

const documentMembers = [
  'Network',
  'SubnetLen',
  'SubnetMin',
  'SubnetMax',
  'Backend',
  'EnableIPv4',
  'EnableIPv6',
  'EnableNFTables',
  'Engine',
  'IPv6Network',
  'IPv6SubnetLen',
  'IPv6SubnetMin',
  'IPv6SubnetMax',
];
const udpMembers = ['Type', 'Port', 'VNI'];
/** Those of flannel's other backends. */
const otherBackendMembers = ['MTU', 'GBP', 'Learning', 'DirectRouting', 'MacPrefix', 'PSK', 'Mode', 'ListenPort'];

/** @param text JSON that parsed to this object */
export function noteMembers(text: string, document: unknown): readonly string[] {
  return [...noteUnknown(document), ...noteRefusedByFlannel(text)];
}

/** Members that resemble no known one are those of a later version, and nobody is told. */
function noteUnknown(document: unknown): readonly string[] {
  const notes = namesOf(document).flatMap(name => {
    if (includes(documentMembers, name)) return [];
    if (includes([...udpMembers, ...otherBackendMembers], name))
      return [`${shown(name)} has no effect where it stands: it is a member of Backend`];
    return noteMisspelt('', name, documentMembers);
  });
  const backend = jsonMembers(document)?.get('backend');
  const type = jsonMembers(backend)?.get('type');
  if (type !== undefined && String(type).toLowerCase() !== 'udp') return notes;
  const extra = namesOf(backend).filter(name => !includes(udpMembers, name));
  return [...notes, ...extra.flatMap(noteUdpMember)];
}

function noteUdpMember(name: string): readonly string[] {
  if (name.toLowerCase() === 'mtu')
    return ['Backend.MTU has no effect: udp has no member MTU, the MTU follows from that of the interface'];
  if (includes(otherBackendMembers, name)) return [`Backend.${shown(name)} has no effect: udp has no such member`];
  return noteMisspelt('Backend.', name, udpMembers);
}

function noteMisspelt(place: string, name: string, known: readonly string[]): readonly string[] {
  const nearest = nearestWord(name, known);
  return nearest === undefined ? [] : [`${place}${shown(name)} has no effect, did you mean ${nearest}?`];
}

function namesOf(value: unknown): readonly string[] {
  return jsonMembers(value) === undefined ? [] : Object.keys(value as object);
}

function includes(names: readonly string[], name: string): boolean {
  return names.some(known => known.toLowerCase() === name.toLowerCase());
}

/** What Go's readers of these members take: the raw text, so that an escape is a part of it. */
const flannelReads: ReadonlyMap<string, readonly [takes: (raw: string) => boolean, expected: string]> = new Map([
  ['network', [raw => isRange(raw, text => readIpv4(text) !== undefined, 32), 'an IPv4 range without escapes']],
  ['subnetmin', [raw => isText(raw, text => readIpv4(text) !== undefined), 'an IPv4 address without escapes']],
  ['subnetmax', [raw => isText(raw, text => readIpv4(text) !== undefined), 'an IPv4 address without escapes']],
  ['ipv6network', [raw => isRange(raw, isIPv6, 128), 'an IPv6 range such as "fd00::/56"']],
  ['ipv6subnetmin', [raw => raw === 'null' || isText(raw, isIPv6), 'an IPv6 address']],
  ['ipv6subnetmax', [raw => raw === 'null' || isText(raw, isIPv6), 'an IPv6 address']],
  ['subnetlen', [isWholeNumber, 'a whole number']],
  ['enableipv4', [isBoolean, 'true or false']],
  ['enableipv6', [isBoolean, 'true or false']],
  ['enablenftables', [isBoolean, 'true or false']],
  ['ipv6subnetlen', [isWholeNumber, 'a whole number']],
]);

/** Go reads each of equal members, and what belongs to a family that is off. */
function noteRefusedByFlannel(text: string): readonly string[] {
  return outerMembers(text).flatMap(({ name, raw }) => {
    const [takes, expected] = flannelReads.get(name.toLowerCase()) ?? [];
    if (takes === undefined || takes(raw)) return [];
    return [`flannel hosts refuse this document: ${name} is written as ${shown(raw)}, they expect ${expected}`];
  });
}

function isWholeNumber(raw: string): boolean {
  return /^(null|0|[1-9]\d{0,8})$/.test(raw);
}

function isBoolean(raw: string): boolean {
  return /^(null|true|false)$/.test(raw);
}

function isText(raw: string, isValue: (text: string) => boolean): boolean {
  const [, text] = /^"([^"\\]*)"$/.exec(raw) ?? [];
  return text !== undefined && isValue(text);
}

function isRange(raw: string, isAddress: (text: string) => boolean, longest: number): boolean {
  return isText(raw, text => {
    const [, address = '', length] = /^([^/%]*)\/(0|[1-9]\d{0,2})$/.exec(text) ?? [];
    return isAddress(address) && Number(length) <= longest;
  });
}
