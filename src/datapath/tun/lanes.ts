/**
 * Lanes: a TUN queue and a socket for bulk flows each, with a thread for either direction, and beside all lanes a queue
 * and a socket for the sparse flows. Where the kernel takes no steering program there is one queue and one socket, and a
 * reason to show.
 */
import { availableParallelism } from 'node:os';
import { messageOf } from '../../lib/errors.js';
import { native, type NativeUdp } from '../../lib/native.js';

export interface Widened {
  /** The descriptor given first, then those added; they belong to the caller. */
  readonly fds: readonly number[];
  /** Why none were added. */
  readonly problem: string | undefined;
}

/** One less than QUEUES_MAX of the data plane's layout. */
const lanesMax = 3;

/** A lane keeps two processors busy: one that sends, one that receives. */
export function defaultLanes(): number {
  return Math.min(lanesMax, Math.max(1, Math.floor(availableParallelism() / 2)));
}

/** Queues beside the one that made the link. */
export function widenTunnel(fd: number, device: string, lanes: number): Widened {
  return widen(fd, lanes, () => {
    native().steerTun(fd, lanes);
    return () => native().openTun(device, false).fd;
  });
}

/** Sockets beside the one that has the address; nobody else could have bound it, so it was ours alone until now. */
export function widenUnderlay(fd: number, lanes: number, open: (share: boolean) => NativeUdp): Widened {
  const widened = widen(fd, lanes, () => {
    native().shareUdp(fd, true);
    return () => open(true).fd;
  });
  if (widened.problem !== undefined) return unshared(fd, widened.problem);
  try {
    native().steerUdp(fd, lanes);
    return widened;
  } catch (error) {
    for (const added of widened.fds.slice(1)) native().closeFd(added);
    return unshared(fd, reasonOf(error));
  }
}

function unshared(fd: number, problem: string): Widened {
  native().shareUdp(fd, false);
  return { fds: [fd], problem };
}

function widen(fd: number, lanes: number, begin: () => () => number): Widened {
  const fds = [fd];
  try {
    const open = begin();
    while (fds.length <= lanes) fds.push(open());
    return { fds, problem: undefined };
  } catch (error) {
    for (const added of fds.slice(1)) native().closeFd(added);
    return { fds: [fd], problem: reasonOf(error) };
  }
}

function reasonOf(error: unknown): string {
  return `flows that send little wait behind bulk ones: ${messageOf(error)} (kernel 5.8 with CONFIG_BPF_SYSCALL, and root or CAP_BPF, are needed)`;
}
