/** A TCP relay on loopback between a client and a server under test: cuts, refuses, or swallows and slows the replies. */
import { createServer, connect, type AddressInfo, type Server, type Socket } from 'node:net';

export class Relay {
  /** Replies of the server are swallowed. */
  mute = false;
  /** Towards the client. */
  bytesPerSecond = Infinity;
  /** Connections taken so far. */
  accepted = 0;
  #open = true;
  /** The port, or the path of a Unix socket, that later connections lead to. */
  target: number | string;
  readonly #server: Server;
  readonly #sockets = new Set<Socket>();

  private constructor(server: Server, target: number | string) {
    this.#server = server;
    this.target = target;
    server.on('connection', client => this.#accept(client));
  }

  static async open(target: number | string): Promise<Relay> {
    const server = createServer();
    await new Promise<void>(resolve => server.listen(0, '127.0.0.1', resolve));
    return new Relay(server, target);
  }

  get endpoint(): string {
    return `http://127.0.0.1:${(this.#server.address() as AddressInfo).port}`;
  }

  /** Ends all connections; new ones end at once. */
  cut(): void {
    this.#open = false;
    for (const socket of this.#sockets) socket.destroy();
  }

  restore(): void {
    this.#open = true;
  }

  async close(): Promise<void> {
    this.cut();
    await new Promise(resolve => this.#server.close(resolve));
  }

  #accept(client: Socket): void {
    client.on('error', () => {});
    this.accepted++;
    if (!this.#open) return void client.destroy();
    const { target } = this;
    const server = connect(typeof target === 'string' ? { path: target } : { port: target, host: '127.0.0.1' });
    server.on('error', () => client.destroy());
    for (const socket of [client, server]) {
      this.#sockets.add(socket);
      socket.on('close', () => {
        this.#sockets.delete(socket);
        client.destroy();
        server.destroy();
      });
    }
    client.on('data', bytes => server.write(bytes));
    server.on('data', bytes => {
      if (this.mute) return;
      client.write(bytes);
      if (this.bytesPerSecond === Infinity) return;
      server.pause();
      setTimeout(() => server.resume(), (bytes.length / this.bytesPerSecond) * 1000);
    });
  }
}
