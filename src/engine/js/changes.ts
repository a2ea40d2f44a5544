import { LayerStoreError } from '../../errors.js';
export const changes = (): Promise<never> => Promise.reject(new LayerStoreError('ERR_NOT_SUPPORTED', 'the JavaScript engine has no changes yet'));
export const diffSize = (): Promise<never> => Promise.reject(new LayerStoreError('ERR_NOT_SUPPORTED', 'the JavaScript engine has no diffSize yet'));
