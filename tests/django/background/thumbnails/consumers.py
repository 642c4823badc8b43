from channels.consumer import AsyncConsumer, SyncConsumer


class GenerateConsumer(SyncConsumer):
    def generate(self, message):
        print(f"generated {message['id']}.", flush=True)


class DeleteConsumer(AsyncConsumer):
    async def delete(self, message):
        print(f"deleted {message['id']}.", flush=True)
