/** What the running data process may do: nothing. Every thread is asked, not the first alone. */
import { readFileSync, readdirSync } from 'node:fs';
import { expect, test } from 'vitest';
import { useLab } from '../support/use-lab.js';

const lab = useLab({ nodes: ['a'] }, opened => opened.bringUp());

function fields(path: string): Readonly<Record<string, string>> {
  const lines = readFileSync(path, 'utf8').split('\n');
  return Object.fromEntries(lines.map(line => line.split(/:\s+/)).map(([name = '', value = '']) => [name, value]));
}

test('no thread has a capability, a way to get one, or a system call too many', async () => {
  const pid = await lab().node('a').datapathPid();
  const threads = readdirSync(`/proc/${pid}/task`);
  expect(threads.length).toBeGreaterThanOrEqual(2);
  for (const thread of threads) {
    const status = fields(`/proc/${pid}/task/${thread}/status`);
    expect(status).toMatchObject({
      CapInh: '0000000000000000',
      CapPrm: '0000000000000000',
      CapEff: '0000000000000000',
      CapAmb: '0000000000000000',
      NoNewPrivs: '1',
      Seccomp: '2',
    });
    expect(status['Uid']?.split('\t')).not.toContain('0');
    expect(status['Gid']?.split('\t')).not.toContain('0');
    expect(status['Groups']?.trim()).toBe('');
  }
});

test('it holds what it forwards with and nothing else', async () => {
  const pid = await lab().node('a').datapathPid();
  const names = (await lab().node('a').run('ls', '-l', `/proc/${pid}/fd`))
    .split('\n')
    .map(line => line.split(' -> ')[1] ?? '');
  const known = /^$|^\/dev\/null$|^\/dev\/net\/tun$|^socket:|^anon_inode:|\/routes$|\/counters$|^pipe:/;
  expect(names.filter(name => !known.test(name))).toEqual([]);
  expect(names.some(name => name.startsWith('/dev/net/tun'))).toBe(true);
});

test('its routes are mapped for reading only', async () => {
  const pid = await lab().node('a').datapathPid();
  const maps = readFileSync(`/proc/${pid}/maps`, 'utf8').split('\n');
  const routes = maps.filter(line => line.endsWith('/routes'));
  expect(routes.length).toBeGreaterThan(0);
  expect(routes.filter(line => !/ r--[sp] /.test(line))).toEqual([]);
});
