// The Worker that holds a page's device.
import { serveTarget } from '../targets/remote/serve.ts'
import { findHere, openHere } from './device-here.ts'

serveTarget({ open: openHere, find: findHere })
