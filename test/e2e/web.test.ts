/** `tartan web` on one host, with two others that their operators opened to it: real daemons, TLS and a real etcd. */
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, expect, test } from 'vitest';
import type { LabHost } from '../support/lab-host.js';
import { attempt, ended, run, start, toolProgram, until, type Running } from '../support/tools.js';
import { useLab } from '../support/use-lab.js';

const secret = 'a-secret-of-32-characters-or-so!';
const lab = useLab({ nodes: ['a', 'b', 'c'] }, async opened => {
  writeFileSync(join(opened.spaces.directory, 'token'), secret, { mode: 0o600 });
  await Promise.all(opened.hosts.map(host => bringUpOpen(host, opened.spaces.directory)));
  await opened.waitForRoutes();
});
let web: Running | undefined;
afterAll(() => void web?.kill('SIGKILL'));

async function bringUpOpen(host: LabHost, directory: string): Promise<void> {
  const [key, cert] = [join(directory, `${host.letter}.key`), join(directory, `${host.letter}.pem`)];
  const curve = ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-nodes', '-days', '2'];
  const names = ['-subj', '/CN=host', '-addext', `subjectAltName=IP:${host.address}`];
  await run(['openssl', 'req', '-x509', ...curve, '-keyout', key, '-out', cert, ...names]);
  await host.bringUp({
    'status-listen': `${host.address}:8287`,
    'status-token-file': join(directory, 'token'),
    'status-tls-cert': cert,
    'status-tls-key': key,
  });
}

/** From within the namespace of host a. */
async function ask(path: string): Promise<unknown> {
  const script = `fetch('http://127.0.0.1:8286${path}').then(r => r.text()).then(console.log)`;
  return JSON.parse(await run(lab().node('a').inside([process.execPath, '-e', script])));
}

test('who reaches whom among three real hosts, the leases of etcd, and events', async () => {
  const [a, b, c] = [lab().node('a'), lab().node('b'), lab().node('c')];
  const { directory } = lab().spaces;
  const lines = [b, c].map(host => `https://${host.address}:8287 ${directory}/token ${directory}/${host.letter}.pem`);
  writeFileSync(join(directory, 'hosts'), lines.join('\n'));
  const places = ['--run-dir', a.runDir, '--state-dir', a.stateDir, '--hosts', join(directory, 'hosts')];
  web = start(a.inside([process.execPath, toolProgram, 'web', ...places]));
  await until('all leases', async () => {
    const leases = JSON.stringify(await ask('/data/leases'));
    return [a, b, c].every(({ subnet }) => leases.includes(subnet));
  });
  expect(await a.pingFromContainer(b.containerAddress)).toBe(true);
  expect(await a.pingFromContainer(c.containerAddress)).toBe(true);
  expect(await b.pingFromContainer(c.containerAddress)).toBe(true);
  await until('everybody reaches everybody', async () => {
    const { value } = (await ask('/data/matrix')) as { value: { rows: readonly { cells: string }[] } };
    // A probe that a busy machine lost while the hosts started is loss, not silence.
    return /^\.[ul]{2},[ul]\.[ul],[ul]{2}\.$/.test(value.rows.map(({ cells }) => cells).join());
  });
  // A reading that takes long is told as none yet.
  const host = await until('this host', async () => {
    const shown = (await ask('/data/host')) as { failure: string | null };
    return shown.failure === null && shown;
  });
  expect(host).toMatchObject({ view: { good: true }, others: true });
  expect(JSON.stringify(await ask('/data/host'))).toContain('daemon.ready');
  expect(await ask('/data/other?n=1')).toMatchObject({ name: `${c.address}, ${c.subnet}` });
});

test('a host that is away is said, and the others stay', async () => {
  await lab().node('c').stopDaemon();
  await until(
    'the failure',
    async () => {
      const { value } = (await ask('/data/matrix')) as { value: { rows: readonly { failure: string | null }[] } };
      return value.rows.map(({ failure }) => failure !== null).join() === 'false,false,true';
    },
    40_000,
  );
  expect(JSON.stringify(await ask('/data/matrix'))).toContain('nobody listens there, see tartand --status-listen');
});

test('without the token the listener says nothing of the host, and the program ends with 0', async () => {
  const script = `process.env.NODE_TLS_REJECT_UNAUTHORIZED = 0;
    fetch('https://192.0.2.2:8287/status').then(r => r.text().then(text => console.log(r.status, text)))`;
  const { stdout } = await attempt(lab().node('a').inside([process.execPath, '-e', script]));
  expect(stdout).toContain('401 send the token');
  web?.kill('SIGTERM');
  expect(web && (await ended(web))).toBe(0);
});
