/**
 * The only error class of the program and its closed list of codes. The code decides what the program does. For a
 * program that stops it decides the exit status, which is one of sysexits.h where one fits.
 */
const exitCodes = {
  USAGE: 64,
  CONFIG_INVALID: 78,
  PERMISSION: 77,
  STORE_UNAVAILABLE: 1,
  NO_FREE_SUBNET: 1,
  DUPLICATE_NODE: 73,
  LEASE_LOST: 75,
  HOST_REFUSED: 1,
  DATAPATH_FAILED: 1,
  INVARIANT: 70,
} as const;

export type ErrorCode = keyof typeof exitCodes;

export class TartanError extends Error {
  readonly code: ErrorCode;
  /** When an attempt that failed for this alone is repeated; undefined: as the caller thinks. */
  readonly retryMs: number | undefined;

  /** @param message names the value, the expected value and the next step, and contains no secret */
  constructor(code: ErrorCode, message: string, options?: { readonly cause?: unknown; readonly retryMs?: number }) {
    super(message, options);
    this.name = 'TartanError';
    this.code = code;
    this.retryMs = options?.retryMs;
  }

  get exitCode(): number {
    return exitCodes[this.code];
  }
}

export function isTartanError(error: unknown, code?: ErrorCode): error is TartanError {
  return error instanceof TartanError && (code === undefined || error.code === code);
}

/** Returns the exit status for a thrown value: by code for a TartanError, else 70 (a broken invariant). */
export function exitCodeOf(error: unknown): number {
  return error instanceof TartanError ? error.exitCode : exitCodes.INVARIANT;
}

/** Returns one line of text for a thrown value. */
export function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}

/** Returns the errno name (`EBUSY`) of an error in Node's shape, undefined for any other. */
export function errnoOf(error: unknown): string | undefined {
  if (!(error instanceof Error) || !('code' in error)) return undefined;
  return typeof error.code === 'string' ? error.code : undefined;
}
