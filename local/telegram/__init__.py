"""A Bot API server whose users sit at a browser on this machine.

It serves the methods that bot.py calls, as https://core.telegram.org/bots/api describes them, and a
page to chat with the bot. It needs TELEGRAM_TOKEN, the bot's token. CHAT_KEY is the key that the
page sends with each of its calls; if it is not set, a key is made.
"""
