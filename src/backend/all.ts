/** Every backend of this version. A new backend is one file and one row here. */
import { TartanError } from '../lib/errors.js';
import type { Backend, BackendContext } from './backend.js';
import { udpBackend, udpDevice } from './udp.js';

/** The link that the data plane makes for a backend of this version. */
export const tunnelDevice = udpDevice;
/** The links that plans of this version name, for those who have no plan. */
export const linkNames: readonly string[] = [tunnelDevice];

export interface BackendRow {
  /** As `Backend.Type` of the network document names it, in lower case. */
  readonly type: string;
  /** @throws TartanError CONFIG_INVALID for members that it cannot use, HOST_REFUSED for a host that it cannot run on */
  create(context: BackendContext): Backend;
}

const backends: readonly BackendRow[] = [{ type: 'udp', create: udpBackend }];

export function runsBackend(type: string): boolean {
  return backends.some(row => row.type === type);
}

/** @throws TartanError CONFIG_INVALID for a backend this version does not run */
export function chooseBackend(context: BackendContext, table: readonly BackendRow[] = backends): Backend {
  const { type } = context.network.backend;
  const row = table.find(other => other.type === type);
  if (row) return row.create(context);
  const known = table.map(other => `"${other.type}"`).join(', ');
  throw new TartanError(
    'CONFIG_INVALID',
    `network document: Backend.Type is '${type}', this version runs ${known} only`,
  );
}
