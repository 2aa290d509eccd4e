/** Users and roles of etcd, as its administrator: each token has a user of its own with the one role. */
import { Connection } from './connection.js';
import { messageOf, TartanError } from '../../lib/errors.js';
import { Keys } from '../keys.js';
import { plainMessage } from './errors.js';
import type { EtcdOptions } from './options.js';

/** The role of every user that a token brings. */
export const roleName = 'tartan';

export class EtcdUsers {
  readonly #connection: Connection;
  readonly #prefix: string;

  /** @param options with the login of root, or none while authentication is off */
  constructor(options: EtcdOptions) {
    const [endpoint = ''] = options.endpoints;
    this.#connection = new Connection(endpoint, options, true);
    this.#prefix = new Keys(options.prefix).prefix;
  }

  /** Makes the role that holds the keys of our prefix alone. */
  async makeRole(): Promise<void> {
    await this.#do('role', async ({ etcd }) => {
      const role = etcd.role(roleName);
      await role.create();
      const below = (name: string): { readonly start: Buffer; readonly end: Buffer } => ({
        start: Buffer.from(`${this.#prefix}/${name}/`),
        end: Buffer.from(`${this.#prefix}/${name}0`),
      });
      const config = { key: Buffer.from(`${this.#prefix}/config`), range_end: Buffer.alloc(0) };
      await etcd.auth.roleGrantPermission({ name: roleName, perm: { permType: 'Read', ...config } });
      for (const { start, end } of ['subnets', 'held', 'joined'].map(below))
        await etcd.auth.roleGrantPermission({
          name: roleName,
          perm: { permType: 'Readwrite', key: start, range_end: end },
        });
    });
  }

  /** Makes a user with a role; none is left when that fails. */
  async add(name: string, password: string, role: string): Promise<void> {
    await this.#do(`user ${name}`, async ({ etcd }) => {
      const user = await etcd.user(name).create(password);
      try {
        await user.addRole(role);
      } catch (error) {
        await user.delete().catch(() => {});
        throw error;
      }
    });
  }

  async remove(name: string): Promise<void> {
    await this.#do(`user ${name}`, async ({ etcd }) => void (await etcd.user(name).delete()));
  }

  async names(): Promise<readonly string[]> {
    return this.#do('list of users', async ({ etcd }) => (await etcd.getUsers()).map(({ name }) => name));
  }

  /** Makes root with its role, then switches authentication on. */
  async enable(rootPassword: string): Promise<void> {
    await this.#do('authentication', async ({ etcd }) => {
      await etcd.role('root').create();
      await this.add('root', rootPassword, 'root');
      await etcd.auth.authEnable();
    });
  }

  close(): void {
    this.#connection.close();
  }

  async #do<T>(what: string, work: (connection: Connection) => Promise<T>): Promise<T> {
    try {
      await this.#connection.reachable;
      return await work(this.#connection);
    } catch (cause) {
      if (cause instanceof TartanError) throw cause;
      const code = /permission denied|authentication failed/.test(messageOf(cause))
        ? 'PERMISSION'
        : 'STORE_UNAVAILABLE';
      // The message of etcd, which holds no password.
      throw new TartanError(code, `etcd, ${what}: ${plainMessage(cause)}`);
    }
  }
}
