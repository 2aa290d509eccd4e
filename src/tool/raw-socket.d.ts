/** The part of raw-socket 1.8 that echo.ts uses; the package has no types of its own. */
declare module 'raw-socket' {
  import type { EventEmitter } from 'node:events';
  interface Socket extends EventEmitter {
    send(
      buffer: Buffer,
      offset: number,
      length: number,
      address: string,
      done: (error: Error | null, bytes: number) => void,
    ): this;
    setOption(level: number, option: number, value: number): void;
    close(): this;
  }
  const raw: {
    readonly Protocol: { readonly ICMP: number };
    createSocket(options: { readonly protocol: number }): Socket;
  };
  export default raw;
}
