/**
 * The kernel's HostNetwork in a process of its own, inside a namespace: one JSON line a call on standard input, one
 * a result on standard output, and a line `"change"` for every ring. Ends with its input. The words of the command line
 * name the networks of the host.
 */
import { createInterface } from 'node:readline';
import { linkNames } from '../../src/backend/all.js';
import { Repairs } from '../../src/host/firewall/repairs.js';
import { openKernelHost } from '../../src/host/kernel-host.js';
import { messageOf, isTartanError } from '../../src/lib/errors.js';
import { silentLog } from '../../src/lib/log.js';
import type { Ipv4 } from '../../src/model/ip.js';
import type { HostPlan } from '../../src/model/plan.js';

export type HostCall =
  | { readonly call: 'interfaces' | 'defaultRoute' | 'cleanup' }
  | { readonly call: 'routeTo' | 'deadNeighbour'; readonly address: Ipv4 }
  | {
      readonly call: 'apply';
      readonly network: string;
      readonly plan: HostPlan | undefined;
      readonly heardOnly: boolean;
    }
  /** Keeps the event loop busy, so that nothing is read meanwhile. */
  | { readonly call: 'block'; readonly ms: number };

const networks = process.argv.slice(2);
/** Each look at this clock is ten minutes after the last one: a test breaks in a minute what a rival breaks in an hour. */
let clockMs = 0;
const repairs = new Repairs(() => (clockMs += 600_000));
const host = openKernelHost({ log: silentLog, repairs, ...(networks.length > 0 && { networks }) });
host.onChange(() => console.log('"change"'));

function answer(request: HostCall): Promise<unknown> {
  const { signal } = new AbortController();
  switch (request.call) {
    case 'interfaces':
      return host.interfaces();
    case 'defaultRoute':
      return host.defaultRoute();
    case 'routeTo':
      return host.routeTo(request.address);
    case 'deadNeighbour':
      return host.deadNeighbour(request.address).then(found => found ?? null);
    case 'apply':
      return host.apply(request.network, request.plan, { signal, heardOnly: request.heardOnly });
    case 'cleanup':
      return host.cleanup(linkNames, { signal });
    case 'block':
      Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, request.ms);
      return Promise.resolve();
  }
}

for await (const line of createInterface({ input: process.stdin })) {
  // A line is a HostCall of the test that started this process.
  const result = await answer(JSON.parse(line) as HostCall).then(
    value => ({ value }),
    (error: unknown) => ({ error: messageOf(error), code: isTartanError(error) ? error.code : undefined }),
  );
  console.log(JSON.stringify(result));
}
await host.close();
