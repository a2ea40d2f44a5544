import { LayerStoreError } from '../../errors.js';
export const treeTar = (): Promise<never> => Promise.reject(new LayerStoreError('ERR_NOT_SUPPORTED', 'the JavaScript engine has no treeTar yet'));
