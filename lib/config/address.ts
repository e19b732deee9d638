/**
 * How a server's address is written: of a database, of its replica, of an SSH server before it.
 */
import * as z from 'zod';

/** Name or address of a server. */
export const hostName = z
  .string()
  .min(1)
  .max(253)
  .regex(/^[^\s${}@]+$/)
  .refine((host) => !host.includes('://'));
export const hostForm = 'the name or address of a server';
export const portNumber = z.int().min(1).max(65_535);
