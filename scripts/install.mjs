console.log('set up later');
