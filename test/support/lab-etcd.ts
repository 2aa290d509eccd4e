/** One real etcd in a namespace of a lab, and etcdctl beside it. The reaper ends it with its namespace. */
import type { ChildProcess } from 'node:child_process';
import { join } from 'node:path';
import type { Namespaces } from './namespaces.js';
import { attempt, ended, run, startService, until } from './tools.js';

const local = 'http://127.0.0.1:2379';

export class LabEtcd {
  readonly endpoint: string;
  readonly #namespaces: Namespaces;
  #child: ChildProcess | undefined;

  constructor(namespaces: Namespaces, address: string) {
    this.#namespaces = namespaces;
    this.endpoint = `http://${address}:2379`;
  }

  /**
   * Starts it, again with the data it had.
   * @param more words of its command line
   * @param scheme of what hosts ask; etcdctl here asks without TLS
   */
  async start(more: readonly string[] = [], scheme: 'http' | 'https' = 'http'): Promise<void> {
    const peer = 'http://127.0.0.1:2380';
    const args = [
      ['--name', 'lab', '--data-dir', join(this.#namespaces.directory, 'etcd'), '--log-level', 'warn'],
      ['--listen-client-urls', scheme === 'http' ? 'http://0.0.0.0:2379' : `${local},${this.#hostUrl(scheme)}`],
      ['--advertise-client-urls', this.endpoint, '--logger', 'zap'],
      ['--listen-peer-urls', peer, '--initial-advertise-peer-urls', peer, '--initial-cluster', `lab=${peer}`],
      // It is killed, and the machine is not; other tests write to the same disk.
      ['--unsafe-no-fsync'],
      more,
    ].flat();
    const child = startService(
      this.#namespaces.inside('e', ['etcd', ...args]),
      join(this.#namespaces.directory, 'etcd.log'),
    );
    this.#child = child;
    await until('etcd healthy', async () => (await this.#ctl(['endpoint', 'health'])).status === 0);
  }

  #hostUrl(scheme: string): string {
    return this.endpoint.replace('http:', `${scheme}:`);
  }

  async kill(): Promise<void> {
    this.#child?.kill('SIGKILL');
    if (this.#child) await ended(this.#child);
  }

  /** etcdctl; its standard output. */
  async ctl(args: readonly string[], input = ''): Promise<string> {
    return run(this.#command(args), { input });
  }

  /** A value from standard input may be of any size, but not empty. */
  async put(key: string, value: string): Promise<void> {
    await (value === '' ? this.ctl(['put', '--', key, '']) : this.ctl(['put', '--', key], value));
  }

  async delete(key: string): Promise<void> {
    await this.ctl(['del', '--', key]);
  }

  /** undefined when there is no such key. */
  async get(key: string): Promise<string | undefined> {
    const text = await this.ctl(['get', '--print-value-only', '--', key]);
    return text === '' ? undefined : text.replace(/\n$/, '');
  }

  async keys(prefix: string): Promise<readonly string[]> {
    const text = await this.ctl(['get', '--prefix', '--keys-only', '--', prefix]);
    return text.split('\n').filter(line => line !== '');
  }

  #ctl(args: readonly string[]) {
    return attempt(this.#command(args), { timeoutMs: 3000 });
  }

  #command(args: readonly string[]): readonly string[] {
    return this.#namespaces.inside('e', ['etcdctl', '--endpoints', local, ...args]);
  }
}
