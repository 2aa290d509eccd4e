/** Starts that must not succeed: each ends with its exit status, says why, and leaves the others alone. */
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { attempt, daemonProgram } from '../support/tools.js';
import { useLab } from '../support/use-lab.js';

const lab = useLab({ nodes: ['a', 'b'] }, opened => opened.node('a').bringUp());

test('an unknown flag: 64', async () => {
  const { status, stderr } = await attempt(lab().node('b').daemonCommand({ 'no-such-flag': 'x' }));
  expect(status).toBe(64);
  expect(stderr).toContain('no-such-flag');
});

test('not root: 77', async () => {
  const unprivileged = ['setpriv', '--reuid', '65534', '--regid', '65534', '--clear-groups', '--no-new-privs'];
  const b = lab().node('b');
  const { status, stderr } = await attempt(b.inside([...unprivileged, process.execPath, daemonProgram, ...b.flags()]));
  expect(status, stderr).toBe(77);
  expect(stderr).toContain('CAP_NET_ADMIN');
});

test('no /dev/net/tun: 77', async () => {
  const b = lab().node('b');
  // A mount namespace of its own whose /dev/net is empty.
  const script = 'mount -t tmpfs tmpfs /dev/net && exec "$@"';
  const hidden = ['unshare', '--mount', '--propagation', 'private', 'sh', '-c', script, 'sh'];
  const { status, stderr } = await attempt(b.inside([...hidden, process.execPath, daemonProgram, ...b.flags()]));
  expect(status, stderr).toBe(77);
  expect(stderr).toContain('/dev/net/tun');
});

test.each(['the same run directory', 'another run directory'])(
  'a second daemon on the host with %s: 73',
  async which => {
    const a = lab().node('a');
    const before = { pid: await a.datapathPid(), generation: (await a.status()).datapath?.generationPublished };
    const other = join(lab().spaces.directory, 'second');
    const flags =
      which === 'the same run directory' ? {} : { 'run-dir': join(other, 'run'), 'state-dir': join(other, 'state') };
    const { status, stderr, stdout } = await attempt(a.daemonCommand(flags));
    expect(status, stdout + stderr).toBe(73);
    expect(a.daemon.running).toBe(true);
    expect({ pid: await a.datapathPid(), generation: (await a.status()).datapath?.generationPublished }).toEqual(
      before,
    );
    expect(await a.run('ip', '-br', 'link', 'show', 'tartan0')).toContain('tartan0');
  },
);

test('another host with the same node id: 73, and the message names the first', async () => {
  const [a, b] = [lab().node('a'), lab().node('b')];
  const { id } = (await a.status()).node;
  const { status, stderr, stdout } = await attempt(b.daemonCommand({ 'node-id': id }));
  expect(status, stdout + stderr).toBe(73);
  expect(stderr).toContain(id);
  expect(stderr).toContain(a.address);
  expect(a.daemon.running).toBe(true);
});

test('another host with the same public IP: 73, and the message names the first', async () => {
  const [a, b] = [lab().node('a'), lab().node('b')];
  const { id } = (await a.status()).node;
  const { status, stderr, stdout } = await attempt(b.daemonCommand({ iface: 'eth0', 'public-ip': a.address }));
  expect(status, stdout + stderr).toBe(73);
  expect(stderr).toContain(id);
  expect(stderr).toContain(a.address);
  expect((await a.status()).ready).toBe(true);
  expect(await lab().etcd.keys('/coreos.com/network/subnets')).toHaveLength(1);
});
