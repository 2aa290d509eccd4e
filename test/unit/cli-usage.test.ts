import { describe, expect, it } from 'vitest';
import { runTool } from '../../src/tool/tool.js';
import { noPorts, unexpected } from '../support/samples.js';

async function run(line: string, calledAs = '/usr/bin/tartan'): Promise<{ status: number; out: string; err: string }> {
  let [out, err] = ['', ''];
  const words = line.split(' ').filter(word => word !== '');
  const status = await runTool(['/usr/bin/node', calledAs, ...words], {
    env: {},
    stdout: text => void (out += text),
    stderr: text => void (err += text),
    stdin: unexpected,
    isTty: false,
    ports: noPorts,
  });
  return { status, out, err };
}

describe('usage', () => {
  it.each([
    '',
    'nonsense',
    'leases --nonsense',
    'leases extra',
    'leases -o yaml',
    'leases --etcd-endpoints',
    'leases --etcd-endpoints=nowhere',
    'leases --run-dir=a\tb',
    'leases --node-id=_',
    'config',
    'config set',
    'config validate a b',
    'lease',
    'lease reserve 10.5.1.7/24',
    'lease reserve 10.5.1.0/24 10.5.2.0/24',
    'lease reserve --public-ip 127.0.0.1',
    'lease reserve --public-ip 192.0.2.1 --node-id a',
    'lease release',
    'lease release 10.5.1.0',
    'leave extra',
    'status --etcd-endpoints=http://127.0.0.1:1',
  ])('%j is 64 and says why on stderr', async line => {
    const outcome = await run(line);
    expect(outcome).toMatchObject({ status: 64, out: '' });
    expect(outcome.err).not.toBe('');
  });

  it('a wrong word gets one line of cause and one of what to do', async () => {
    expect((await run('leases --nonsense')).err).toBe("error: unknown option '--nonsense'\nnext: see --help\n");
  });

  it('help and version are 0 and on stdout', async () => {
    for (const line of [
      '--help',
      '-h',
      'leases --help',
      'config set -h',
      'lease --help',
      'lease reserve -h',
      'leave -h',
      '--version',
    ]) {
      const outcome = await run(line);
      expect(outcome).toMatchObject({ status: 0, err: '' });
      expect(outcome.out).not.toBe('');
    }
    expect((await run('--version')).out).toMatch(/^\d+\.\d+\.\d+\n$/);
    expect((await run('--help', '/usr/bin/subnet-lease')).out).toMatch(/^Usage: subnet-lease /);
    expect((await run('--help')).out).toContain('Exit status: 0 ok, 1 error, 2 a check failed, 4 ');
  });
});

describe('help', () => {
  /** The words of every command that runs something, as the help lists them. */
  async function commands(path: string): Promise<readonly string[]> {
    const { out } = await run(`${path} --help`);
    const listed = /\nCommands:\n([^]*?)(\n\n|$)/.exec(out)?.[1] ?? '';
    const names = [...listed.matchAll(/^ {2}(\S+)/gm)].map(([, name = '']) => name).filter(name => name !== 'help');
    if (names.length === 0) return [path];
    return (await Promise.all(names.map(name => commands(`${path} ${name}`.trim())))).flat();
  }

  it('of each command has an example, which is a command line of it', async () => {
    const all = await commands('');
    expect(all.length).toBeGreaterThan(15);
    // That help is the one of flannel's script.
    for (const path of all.filter(name => name !== 'docker-opts')) {
      const { out } = await run(`${path} --help`);
      expect(out, path).toMatch(new RegExp(`\n\nExamples?:\n  tartan ${path}`));
    }
    expect((await run('reserve --help', '/usr/bin/subnet-lease')).out).toContain(
      '\n  subnet-lease reserve 10.5.7.0/24',
    );
  });

  it('lists the options for etcd once, for all commands', async () => {
    expect((await run('--help')).out).toMatch(/\nEtcd options[^\n]*\n {2}--etcd-endpoints <urls> .*\n/);
    expect((await run('--help', '/usr/bin/subnet-lease')).out).toContain('--etcd-cafile <file>');
    const { out } = await run('leases --help');
    expect(out).not.toContain('--etcd-prefix');
    expect(out).toContain('listed by tartan --help');
    expect((await run('leases --etcd-endpoints=nowhere')).err).toContain('--etcd-endpoints: ');
  });
});
