/** Every backend of this version. A new backend is one file and one case here. */
import { TartanError } from '../lib/errors.js';
import type { Backend, BackendContext } from './backend.js';
import { udpBackend } from './udp.js';

/** @throws TartanError CONFIG_INVALID for a backend this version does not run */
export function chooseBackend(context: BackendContext): Backend {
  const config = context.network.backend;
  switch (config.type) {
    case 'udp':
      return udpBackend({ ...context, port: config.port });
    case 'later':
      throw new TartanError(
        'CONFIG_INVALID',
        `network document: Backend.Type is '${config.name}', this version runs "udp" only`,
      );
  }
}
