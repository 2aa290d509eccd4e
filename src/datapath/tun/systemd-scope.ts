/**
 * The scope of a data process (systemd.scope(5)). Where systemd runs tartand as a service, the data process gets a
 * control group of its own, with the weight of the service's: systemd takes a process that stays in the group of a
 * stopped service for one that was forgotten. In a shutdown the scope ends last.
 */
import { execFile } from 'node:child_process';
import { basename } from 'node:path';
import { promisify } from 'node:util';
import { childEnvironment } from '../../lib/child-environment.js';
import { messageOf } from '../../lib/errors.js';
import { readOrEmpty } from './find-process.js';

const timeoutMs = 3_000;
const manager = ['org.freedesktop.systemd1', '/org/freedesktop/systemd1', 'org.freedesktop.systemd1.Manager'] as const;
/** systemd's value for a weight that is not set. */
const noWeight = String(2n ** 64n - 1n);

/**
 * Moves a process out of the control group of our service. Nothing is done where it has left that already, or where
 * we are no service.
 * @throws Error when systemd cannot be asked, or refuses
 */
export async function enterScope(pid: number): Promise<void> {
  const service = serviceOf(process.pid);
  if (service === undefined || serviceOf(pid) !== service) return;
  const { weight, slice } = await propertiesOf(process.pid);
  const properties = [
    ['PIDs', 'au', '1', String(pid)],
    ['Description', 's', 'Data process of tartan'],
    ['CollectMode', 's', 'inactive-or-failed'],
    ['Slice', 's', slice],
    // Stopped in the opposite order: Docker, we, who would respawn it, and then the process.
    ['Before', 'as', '2', 'docker.service', basename(service)],
    ...(weight === noWeight ? [] : [['CPUWeight', 't', weight]]),
  ];
  const name = `tartan-datapath-${pid}.scope`;
  const wanted = [name, 'fail', String(properties.length), ...properties.flat(), '0'];
  await busctl('call', ...manager, 'StartTransientUnit', 'ssa(sv)a(sa(sv))', ...wanted);
}

/** The path of the control group, when it is that of a service of systemd. */
function serviceOf(pid: number): string | undefined {
  const groups = readOrEmpty(`/proc/${pid}/cgroup`);
  const path = /^0::(\/.+)$/m.exec(groups)?.[1] ?? /^\d+:name=systemd:(\/.+)$/m.exec(groups)?.[1];
  return path?.endsWith('.service') ? path : undefined;
}

async function propertiesOf(pid: number): Promise<{ readonly weight: string; readonly slice: string }> {
  const unit = quoted(await busctl('call', ...manager, 'GetUnitByPID', 'u', String(pid)));
  const [destination] = manager;
  const service = [destination, unit, `${destination}.Service`] as const;
  const lines = (await busctl('get-property', ...service, 'CPUWeight', 'Slice')).split('\n');
  return { weight: lines[0]?.split(' ')[1] ?? noWeight, slice: quoted(lines[1] ?? '') };
}

/** The text of an answer such as `o "/org/..."`. */
function quoted(answer: string): string {
  const text = /"(.*)"/.exec(answer)?.[1];
  if (text === undefined) throw new Error(`systemd answered ${JSON.stringify(answer)} instead of a text`);
  return text;
}

async function busctl(...words: readonly string[]): Promise<string> {
  const options = { timeout: timeoutMs, encoding: 'utf8', env: childEnvironment() } as const;
  try {
    return (await promisify(execFile)('busctl', ['--system', '--no-pager', ...words], options)).stdout;
  } catch (error) {
    const answer = error instanceof Error && 'stderr' in error ? String(error.stderr).trim() : '';
    throw new Error(`busctl: ${answer || messageOf(error)}`, { cause: error });
  }
}
