/**
 * A lease as etcd has it under `<prefix>/subnets/`. The key is `A.B.C.D-L`. The value is written as flannel writes it
 * (Go's member order, no spaces), with members of our own added, which flannel ignores.
 */
import { isIPv6 } from 'node:net';
import { TartanError } from '../lib/errors.js';
import { formatIpv4, isUnicastHost, prefixAround, readIpv4, shown, type Ipv4, type Prefix } from './ip.js';
import { formatFeatures, parseFeatures, type Features } from './features.js';
import { decodeUtf8, formatAscii, jsonMembers, kindOf, parseJsonObject, type JsonObject } from './json.js';
import { nodeIdPattern, readHostName } from './node.js';

/** What a backend publishes for its peers. */
export interface BackendInfo {
  /** In lower case; `udp` for a lease that names none. */
  readonly type: string;
  /** The JSON value of BackendData, undefined where there is none. The udp backend publishes none. */
  readonly data: unknown;
}

/** What a lease key says. */
export interface LeaseMembers {
  readonly publicIp: Ipv4;
  readonly backend: BackendInfo;
  /** Undefined in an entry that flannel wrote. */
  readonly nodeId: string | undefined;
  readonly bootId: string | undefined;
  /** Names the machine; undefined where the host cannot tell it apart from others. */
  readonly hardware?: string | undefined;
  /** What the people of the host call it; undefined where its lease does not say, or says no host name. */
  readonly hostName?: string | undefined;
  readonly features: Features;
  /** The owner has released the subnet: peers drop the route at once. */
  readonly released: boolean;
}

/** The value of a lease key. */
export interface LeaseValue extends LeaseMembers {
  /** The exact value, one character for each byte (latin1): members that this version does not know, and their form. */
  readonly text: string;
}

export interface Lease extends LeaseValue {
  readonly subnet: Prefix;
  /** etcd's create_revision; a new owner has a higher one. */
  readonly createRevision: bigint;
  /** etcd's mod_revision. */
  readonly revision: bigint;
  /** The id of the etcd lease in decimal; '0' means a reservation, which never expires. */
  readonly leaseId: string;
}

/** An entry under `<prefix>/subnets/` that is no usable lease; it is refused alone. */
export interface RejectedEntry {
  readonly key: string;
  readonly revision: bigint;
  readonly reason: string;
}

/** The whole set of leases, never a difference. */
export interface LeaseSet {
  readonly leases: readonly Lease[];
  readonly rejected: readonly RejectedEntry[];
  /** The revision of the store at which the set was read. */
  readonly revision: bigint;
}

const maxValueBytes = 16 * 1024;
const keyGrammar = /^([0-9.]{7,15})-([0-9]{1,2})$/;

/** @returns undefined unless `name` (the key below `subnets/`) is exactly as formatLeaseKey writes it */
export function readLeaseKey(name: string): Prefix | undefined {
  const match = keyGrammar.exec(name);
  const base = readIpv4(match?.[1] ?? '');
  const length = Number(match?.[2]);
  if (base === undefined || !(length >= 1 && length <= 31)) return undefined;
  const subnet = prefixAround(base, length);
  return formatLeaseKey(subnet) === name ? subnet : undefined;
}

/** Returns the IPv4 part of flannel's key of a dual-stack lease, such as `10.5.1.0-24&fd00::-64`. */
export function readDualStackKey(name: string): Prefix | undefined {
  const [ipv4 = '', ipv6 = '', ...rest] = name.split('&');
  const sound = rest.length === 0 && /^[0-9a-f:]{2,39}-(\d{1,2}|1[01]\d|12[0-8])$/i.test(ipv6);
  return sound && isIPv6(ipv6.replace(/-.*/, '')) ? readLeaseKey(ipv4) : undefined;
}

export function formatLeaseKey(subnet: Prefix): string {
  return `${formatIpv4(subnet.base)}-${subnet.length}`;
}

/**
 * @param text one character for each byte (latin1)
 * @throws TartanError CONFIG_INVALID with the reason
 */
export function parseLeaseValue(text: string): LeaseValue {
  const members = parseJsonObject(decodeUtf8(text), 'the lease value', maxValueBytes);
  const publicIp = readPublicIp(members.get('publicip'));
  return {
    publicIp,
    backend: readBackendInfo(members),
    nodeId: readId(members, 'nodeId'),
    bootId: readId(members, 'bootId'),
    hardware: readHardwareName(members.get('hardware')),
    hostName: readHostName(members.get('hostname')),
    features: parseFeatures(members.get('features')),
    released: members.get('released') === true,
    text,
  };
}

/** Returns the members with the text that this version writes for them. */
export function leaseValueOf<T extends LeaseMembers>(members: T): T & LeaseValue {
  return { ...members, text: formatLeaseValue(members) };
}

/** Returns who wrote a value, also one that is refused for another member; undefined where it names nobody. */
export function readOwner(text: string): Pick<LeaseMembers, 'nodeId' | 'bootId'> | undefined {
  try {
    const members = parseJsonObject(decodeUtf8(text), 'the lease value', maxValueBytes);
    return { nodeId: readId(members, 'nodeId'), bootId: readId(members, 'bootId') };
  } catch {
    return undefined;
  }
}

/** Returns the value as this version writes it, in ASCII. */
export function formatLeaseValue(value: LeaseMembers): string {
  const features = formatFeatures(value.features);
  return formatAscii({
    PublicIP: formatIpv4(value.publicIp),
    PublicIPv6: null,
    ...formatBackendInfo(value.backend),
    ...(value.nodeId === undefined ? {} : { nodeId: value.nodeId }),
    ...(value.bootId === undefined ? {} : { bootId: value.bootId }),
    ...(value.hardware === undefined ? {} : { hardware: value.hardware }),
    ...(value.hostName === undefined ? {} : { hostName: value.hostName }),
    ...(features && { features }),
    ...(value.released ? { released: true } : {}),
  });
}

function readPublicIp(value: unknown): Ipv4 {
  // Go accepts the IPv4-mapped form; every other form is refused.
  const text = typeof value === 'string' ? value.replace(/^::ffff:(?=[0-9.]+$)/i, '') : '';
  const address = readIpv4(text);
  if (address === undefined) throw refusal('PublicIP', value ?? null, 'an IPv4 address in quotes');
  if (!isUnicastHost(address)) throw refusal('PublicIP', value, 'a unicast address that a host can have');
  return address;
}

function readId(members: JsonObject, name: string): string | undefined {
  const value = members.get(name.toLowerCase());
  if (value === undefined) return undefined;
  if (typeof value !== 'string' || !nodeIdPattern.test(value)) throw refusal(name, value, 'letters, digits, . _ or -');
  return value;
}

/** What this version does not understand names no machine. */
function readHardwareName(value: unknown): string | undefined {
  return typeof value === 'string' && nodeIdPattern.test(value) ? value : undefined;
}

function readBackendInfo(members: JsonObject): BackendInfo {
  const value = members.get('backendtype') ?? '';
  if (typeof value !== 'string' || !/^[A-Za-z0-9-]{0,32}$/.test(value))
    throw refusal('BackendType', value, 'a backend name');
  const type = value.toLowerCase();
  if (type === '' || type === 'udp') return { type: 'udp', data: undefined };
  const data = members.get('backenddata');
  return { type, data: type === 'vxlan' ? readVxlanData(data) : data };
}

/** Reads flannel's vxlanLeaseAttrs (pkg/backend/vxlan/vxlan.go). */
function readVxlanData(value: unknown): { readonly VNI: number; readonly VtepMAC: string } {
  const data = jsonMembers(value);
  const vni = data?.get('vni') ?? 1;
  const mac = data?.get('vtepmac');
  if (typeof mac !== 'string' || !/^([0-9a-f]{2}:){5}[0-9a-f]{2}$/i.test(mac))
    throw refusal('BackendData.VtepMAC', mac ?? null, 'six octets in hex');
  if (typeof vni !== 'number' || !Number.isInteger(vni) || vni < 0 || vni > 0xffffff)
    throw refusal('BackendData.VNI', vni, '0 to 16777215');
  return { VNI: vni, VtepMAC: mac.toLowerCase() };
}

function formatBackendInfo({ type, data }: BackendInfo): object {
  if (type === 'udp') return {};
  return { BackendType: type, ...(data === undefined ? {} : { BackendData: data }) };
}

function refusal(field: string, value: unknown, expected: string): TartanError {
  return new TartanError('CONFIG_INVALID', `lease value: ${field} is ${shown(kindOf(value))}, expected ${expected}`);
}
