/** The tool's ports on the real etcd and the real socket. */
import { silentLog } from '../lib/log.js';
import { getNetworkText, listLeases, putNetworkText } from '../store/cluster.js';
import { openEtcd } from '../store/etcd/etcd-kv.js';
import { openEcho } from './echo.js';
import type { ToolPorts } from './ports.js';
import { readStatus } from './status-client.js';

export function openToolPorts(cleanup: ToolPorts['cleanup']): ToolPorts {
  return {
    async openStore(options) {
      // What etcd has to say reaches the operator as the error of the call.
      const kv = openEtcd(options, silentLog);
      // Each call has a deadline of its own, and Ctrl-C ends the process.
      const o = { signal: new AbortController().signal };
      return {
        listLeases: () => listLeases(kv, options.prefix, o),
        getNetworkText: () => getNetworkText(kv, options.prefix, o),
        putNetworkText: text => putNetworkText(kv, options.prefix, text, o),
        close: () => kv.close(),
      };
    },
    readStatus,
    cleanup,
    openEcho,
  };
}
