/** Formats the network document, with what follows from it, as a document of `tartan/v1` and as text. */
import { apiVersion } from '../agent/status.js';
import { runsBackend } from '../backend/all.js';
import { formatIpv4, formatPrefix } from '../model/ip.js';
import { parseNetworkConfig, subnetCount, type NetworkConfig } from '../model/network.js';
import { formatFields, type Field, type Output, type Paint } from './table.js';

export interface NetworkView {
  readonly apiVersion: typeof apiVersion;
  readonly kind: 'NetworkConfig';
  readonly network: string;
  readonly subnetLength: number;
  readonly subnetMin: string;
  readonly subnetMax: string;
  /** How many hosts can have a subnet. */
  readonly subnets: number;
  readonly backend: { readonly type: string; readonly port: number | null };
  readonly engine: NetworkConfig['engine'];
  readonly warnings: readonly string[];
  /** The document as it was written. */
  readonly document: unknown;
}

/** @throws TartanError CONFIG_INVALID that names the field */
export function networkViewOf(text: string): NetworkView {
  const config = parseNetworkConfig(text);
  const { type, port } = config.backend;
  const runs = runsBackend(type);
  const later = runs ? [] : [`this version of tartand does not run the backend ${type}`];
  return {
    apiVersion,
    kind: 'NetworkConfig',
    network: formatPrefix(config.network),
    subnetLength: config.subnetLength,
    subnetMin: formatIpv4(config.subnetMin),
    subnetMax: formatIpv4(config.subnetMax),
    subnets: subnetCount(config),
    backend: { type, port: runs && port > 0 ? port : null },
    engine: config.engine,
    warnings: [...config.warnings, ...later],
    document: JSON.parse(text),
  };
}

export function formatNetworkView(view: NetworkView, output: Exclude<Output, 'json'>, paint: Paint): string {
  const { type, port } = view.backend;
  const fields: readonly Field[] = [
    ['network', view.network],
    ['subnets', `/${view.subnetLength} each, ${view.subnets} of them, ${view.subnetMin} to ${view.subnetMax}`],
    ['backend', port === null ? type : `${type}, port ${port}`],
    ...(view.engine === 'user' ? [['engine', 'user space on all hosts'] as const] : []),
  ];
  return formatFields(output === 'wide' ? [...fields, ['document', JSON.stringify(view.document)]] : fields, paint);
}
