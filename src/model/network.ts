/**
 * The network document, `<prefix>/config`. It is parsed as flannel parses it (pkg/subnet/config.go,
 * CheckNetworkConfig), and errors name the field. Two documents that flannel accepts and then cannot run are refused:
 * SubnetMin above SubnetMax, and a network that no host can route.
 */
import IPCIDR from 'ip-cidr';
import { TartanError } from '../lib/errors.js';
import { noteMembers } from './network-notes.js';
import { jsonMembers, kindOf, parseJsonObject, type JsonObject } from './json.js';
import {
  formatIpv4,
  formatPrefix,
  nonUnicastRanges,
  prefixAround,
  prefixContains,
  prefixLast,
  nthPrefix,
  placesBehind,
  unspecifiedIpv4,
  prefixesOverlap,
  readIpv4,
  shown,
  type Ipv4,
  type Prefix,
} from './ip.js';

export interface BackendConfig {
  /** One of flannel's backends, in lower case. Whether this version runs it is known to `backend/all.ts`. */
  readonly type: string;
  /** The member Port. Where it is absent: 8285 for udp, 0 for any other backend. */
  readonly port: number;
  /** All other members, by lower-case name. The backend reads those that it has. */
  readonly members: JsonObject;
}

export interface NetworkConfig {
  readonly network: Prefix;
  readonly subnetLength: number;
  /** The base of the first subnet that may be leased, and of the last one. */
  readonly subnetMin: Ipv4;
  readonly subnetMax: Ipv4;
  readonly backend: BackendConfig;
  /** The member EnableNFTables: packet filter rules go to nftables. */
  readonly nftables: boolean;
  /** The member Engine: `user` switches the kernel engine off on all hosts, `auto` leaves it to the flag of each. */
  readonly engine: 'user' | 'auto';
  /** One log line for each value that was accepted and is unusual. */
  readonly warnings: readonly string[];
}

/** The name, on its hosts, of the network that a daemon serves when it is told no name. */
export const defaultNetworkName = 'default';
export const defaultUdpPort = 8285;
const defaultVni = 1;
const vniMax = 0xffffff;
const maxBytes = 64 * 1024;
/** flannel's backends (pkg/backend). */
const backendTypes = ['udp', 'vxlan', 'host-gw', 'wireguard', 'ipip', 'ipsec', 'alloc', 'extension', 'tencent-vpc'];

/** @throws TartanError CONFIG_INVALID that names the field, its value and the expected value */
export function parseNetworkConfig(text: string): NetworkConfig {
  const members = parseJsonObject(text, 'the network document', maxBytes);
  refuseFractions(text);
  refuseFamilies(members);
  const nftables = readBoolean(members, 'EnableNFTables', false);
  const engine = readEngine(members.get('engine'));
  const warnings = [...noteMembers(text, JSON.parse(text))];
  const network = readNetwork(members.get('network'), warnings);
  const subnetLength = readSubnetLength(members.get('subnetlen'), network);
  const { subnetMin, subnetMax } = readRange(members, network, subnetLength);
  const backend = readBackend(members);
  return { network, subnetLength, subnetMin, subnetMax, backend, nftables, engine, warnings };
}

/** Returns a document that parses to this network again, without the warnings. */
export function formatNetworkConfig(config: NetworkConfig): string {
  const { network, subnetLength, subnetMin, subnetMax, backend, nftables, engine } = config;
  return JSON.stringify({
    Network: formatPrefix(network),
    SubnetLen: subnetLength,
    SubnetMin: formatIpv4(subnetMin),
    SubnetMax: formatIpv4(subnetMax),
    Backend: formatBackend(backend),
    ...(nftables && { EnableNFTables: true }),
    ...(engine === 'user' && { Engine: 'user' }),
  });
}

/** Returns the member `Backend`. Of the udp backend only the port and the VNI mean something. */
export function formatBackend(backend: BackendConfig): object {
  const { type, port, members } = backend;
  const vni = vniOf(backend);
  if (type === 'udp') return { Type: type, Port: port, ...(vni !== defaultVni && { VNI: vni }) };
  const sorted = [...members].sort(([a], [b]) => (a < b ? -1 : 1));
  return { Type: type, ...(port > 0 && { Port: port }), ...Object.fromEntries(sorted) };
}

/** Returns the VXLAN network identifier of the member `Backend`, 24 bits; flannel's vxlan has the same default. */
export function vniOf({ members }: BackendConfig): number {
  return readNumber(members, 'VNI', vniMax) || defaultVni;
}

/** Returns how many subnets may be leased; `subnetAt(config, 0)` is the first of them. */
export function subnetCount(config: NetworkConfig): number {
  return placesBehind(subnetAt(config, 0), config.subnetMax) + 1;
}

export function subnetAt(config: NetworkConfig, index: number): Prefix {
  return nthPrefix({ base: config.subnetMin, length: config.subnetLength }, index);
}

/** Tells whether this network leases the subnet. */
export function isLeasable(config: NetworkConfig, subnet: Prefix): boolean {
  return subnet.length === config.subnetLength && subnet.base >= config.subnetMin && subnet.base <= config.subnetMax;
}

function invalid(field: string, value: unknown, expected: string): TartanError {
  return new TartanError('CONFIG_INVALID', `network document: ${field} is ${kindOf(value)}, expected ${expected}`);
}

/** Refuses 24.0 and 2.4e1: JSON.parse reads them as 24, but Go refuses them, so flannel hosts would not start. */
function refuseFractions(text: string): void {
  const match = /"(subnetlen|port|vni|mtu)"\s*:\s*(-?\d+(?:\.\d*)?(?:[eE][-+]?\d+)?)/gi;
  for (const [, field, number] of text.matchAll(match)) {
    if (!/^-?\d+$/.test(number ?? ''))
      throw invalid(field ?? '', `${number}`, 'a whole number without point or exponent');
  }
}

function readBoolean(members: JsonObject, name: string, fallback: boolean): boolean {
  const value = members.get(name.toLowerCase());
  if (value === undefined || value === null) return fallback;
  if (typeof value !== 'boolean') throw invalid(name, value, 'true or false');
  return value;
}

function readEngine(value: unknown): NetworkConfig['engine'] {
  if (value === undefined || value === null) return 'auto';
  const engine = typeof value === 'string' ? value.toLowerCase() : undefined;
  if (engine === 'user' || engine === 'auto') return engine;
  throw invalid('Engine', value, '"user" (no host uses the kernel engine) or "auto" (each host by its flag)');
}

function refuseFamilies(members: JsonObject): void {
  if (!readBoolean(members, 'EnableIPv4', true)) throw invalid('EnableIPv4', false, 'true: this version carries IPv4');
  if (readBoolean(members, 'EnableIPv6', false))
    throw invalid('EnableIPv6', true, 'false: this version carries IPv4 only');
}

function readNetwork(value: unknown, warnings: string[]): Prefix {
  const expected = 'an IPv4 range such as "10.5.0.0/16"';
  if (typeof value !== 'string') throw invalid('Network', value ?? null, expected);
  const [address, length] = value.split('/');
  const given = readIpv4(address ?? '');
  if (given === undefined || !/^([1-9]|[12]\d|3[0-2])$/.test(length ?? '') || !IPCIDR.isValidCIDR(value))
    throw invalid('Network', value, expected);
  const network = prefixAround(given, Number(length));
  if (network.base !== given)
    warnings.push(`Network ${shown(value)} has host bits set, ${formatPrefix(network)} is used`);
  const bad = nonUnicastRanges.find(range => prefixesOverlap(range, network));
  if (bad) throw invalid('Network', value, `a unicast range outside ${formatPrefix(bad)}`);
  return network;
}

function readSubnetLength(value: unknown, network: Prefix): number {
  const text = formatPrefix(network);
  if (value === undefined || value === null || value === 0) {
    if (network.length > 28) throw invalid('Network', text, 'a range of /28 or larger, so that subnets fit in it');
    return network.length <= 22 ? 24 : network.length + 2;
  }
  if (typeof value !== 'number' || !Number.isInteger(value))
    throw invalid('SubnetLen', value, 'a whole number such as 24');
  if (value < network.length + 2 || value > 30)
    throw invalid('SubnetLen', value, `${network.length + 2} to 30 for Network ${text}`);
  return value;
}

function readRange(members: JsonObject, network: Prefix, subnetLength: number): { subnetMin: Ipv4; subnetMax: Ipv4 } {
  // The default leaves out the first subnet, because its base is the address of the network itself.
  const subnetMin =
    readBound(members, 'SubnetMin', network, subnetLength) ??
    nthPrefix({ base: network.base, length: subnetLength }, 1).base;
  const subnetMax =
    readBound(members, 'SubnetMax', network, subnetLength) ?? prefixAround(prefixLast(network), subnetLength).base;
  if (subnetMin > subnetMax)
    throw invalid('SubnetMin', formatIpv4(subnetMin), `an address not above SubnetMax ${formatIpv4(subnetMax)}`);
  return { subnetMin, subnetMax };
}

function readBound(
  members: JsonObject,
  name: 'SubnetMin' | 'SubnetMax',
  network: Prefix,
  subnetLength: number,
): Ipv4 | undefined {
  const value = members.get(name.toLowerCase());
  if (value === undefined) return undefined;
  const address = typeof value === 'string' ? readIpv4(value) : undefined;
  if (address === undefined) throw invalid(name, value, 'an IPv4 address');
  // flannel reads the zero address as an absent member.
  if (address === unspecifiedIpv4) return undefined;
  if (!prefixContains(network, address)) throw invalid(name, value, `an address in ${formatPrefix(network)}`);
  if (prefixAround(address, subnetLength).base !== address)
    throw invalid(name, value, `the first address of a /${subnetLength}`);
  return address;
}

function readBackend(members: JsonObject): BackendConfig {
  if (!members.has('backend')) return { type: 'udp', port: defaultUdpPort, members: new Map() };
  const backend = jsonMembers(members.get('backend'));
  if (!backend) throw invalid('Backend', members.get('backend'), 'an object such as {"Type":"udp"}');
  const value = backend.get('type');
  const type = typeof value === 'string' ? value.toLowerCase() : '';
  if (!backendTypes.includes(type)) throw invalid('Backend.Type', value ?? null, '"udp"');
  const port = readNumber(backend, 'Port', 65535);
  const own = new Map([...backend].filter(([name]) => name !== 'type' && name !== 'port'));
  readNumber(backend, 'VNI', vniMax);
  if (type === 'udp') return { type, port: port || defaultUdpPort, members: own };
  readNumber(backend, 'MTU', 65535);
  return { type, port, members: own };
}

/** @returns 0 when the member is absent */
function readNumber(backend: JsonObject, name: string, max: number): number {
  const value = backend.get(name.toLowerCase());
  if (value === undefined || value === null) return 0;
  if (typeof value !== 'number' || !Number.isInteger(value) || value < 0 || value > max)
    throw invalid(`Backend.${name}`, value, `a whole number from 0 to ${max}`);
  return value;
}
